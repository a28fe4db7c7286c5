"""What a node's agent tells the broker: devices, looks at them, and which pod has which.

The form of ``POST nodes/{node}/samples``. Promises: everything is bounded (a lying agent costs little);
no clock of the node counts, only ages do; a share belongs to a device of the same report. Fields that
are not known are passed over: agents may be newer than the broker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from gpuhub.telemetry.base import whole

MAX_DEVICES = 128
"""Of one node: 16 GPUs in 7 parts each are 112."""
MAX_SHARES = 1024
MAX_LOOKS = 16
MAX_PROCESSES = 256
"""On one device."""
MAX_PODS = 256
"""With GPUs, on one node: more than a kubelet runs at all, by default."""
MAX_AGE_SECONDS = 120.0
MAX_NAME = 128
MAX_PROBLEM = 500
MAX_BYTES = 2**50


def clean(text: object, limit: int) -> object:
    """Return ``text`` without what a terminal or page would not show, cut at ``limit`` characters."""
    if not isinstance(text, str):
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: 4 * limit])[:limit]


DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
KubeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
PodUid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f][0-9a-f-]{0,63}$")]
Shown = Annotated[str, BeforeValidator(lambda text: clean(text, MAX_NAME)), Field(max_length=MAX_NAME)]
"""A name that somebody hostile may have chosen: a process may call itself anything."""
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Watts = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class DeviceReport(_Part):
    """One GPU of the node, or one part of a divided one."""

    id: DeviceId
    index: Annotated[int, Field(ge=0, le=4096)]
    name: Shown
    memory_bytes: Bytes
    simulated: bool = False


class ProcessReport(_Part):
    """One process on a device."""

    pid: Annotated[int, Field(ge=1, le=2**31)]
    name: Shown
    memory_bytes: Bytes
    utilisation_percent: Percent | None = None
    pod_uid: PodUid | None = None


class SampleReport(_Part):
    """What was measured of one device, or of one pod's share of it."""

    device: DeviceId
    utilisation_percent: Percent
    memory_bytes: Bytes
    power_watts: Watts | None = None
    processes: Annotated[list[ProcessReport], Field(max_length=MAX_PROCESSES)] = Field(default_factory=list)


class LookReport(_Part):
    """One look at all devices of a node."""

    age_seconds: Annotated[float, Field(ge=0, le=MAX_AGE_SECONDS, allow_inf_nan=False)]
    """How long ago it was when it was sent."""
    samples: Annotated[list[SampleReport], Field(max_length=MAX_DEVICES + MAX_SHARES)]


class AllocationReport(_Part):
    """The GPUs of one pod."""

    namespace: KubeName
    pod: KubeName
    uid: PodUid | None = None
    devices: Annotated[list[DeviceId], Field(max_length=MAX_DEVICES)]


class NodeReport(_Part):
    """All that a node's agent knows since it was last heard."""

    problem: (
        Annotated[str, BeforeValidator(lambda text: clean(text, MAX_PROBLEM)), Field(max_length=MAX_PROBLEM)]
        | None
    ) = None
    """What it could not do, one or more sentences for an operator."""
    devices: Annotated[list[DeviceReport], Field(max_length=MAX_DEVICES)] = Field(default_factory=list)
    looks: Annotated[list[LookReport], Field(max_length=MAX_LOOKS)] = Field(default_factory=list)
    """Oldest first."""
    allocations: Annotated[list[AllocationReport], Field(max_length=MAX_PODS)] | None = None
    """None: the kubelet did not say."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        known = [device.id for device in self.devices]
        _once("device", known)
        for look in self.looks:
            _once("sample", (sample.device for sample in look.samples))
        ages = [look.age_seconds for look in self.looks]
        if ages != sorted(ages, reverse=True):
            raise ValueError("the looks are not in their order, oldest first")
        pods = self.allocations or []
        _once("pod", (f"{pod.namespace}/{pod.pod}" for pod in pods))
        return self

    def named(self) -> frozenset[str]:
        """Return every whole device that the report says something about."""
        return frozenset(
            [
                *(whole(device.id) for device in self.devices),
                *(whole(sample.device) for look in self.looks for sample in look.samples),
                *(whole(device) for pod in self.allocations or () for device in pod.devices),
            ]
        )


def _once(what: str, ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise ValueError(f"the {what} {one} is named twice")
        seen.add(one)
