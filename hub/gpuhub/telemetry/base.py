"""The ports between broker and whatever measures GPUs.

A device that is missing from an answer is a device about which nothing is known; nobody is
reclaimed on the ground of missing telemetry (rule 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

REPLICA_MARK = "::"
"""NVIDIA's device plugin names the shares of one GPU ``GPU-uuid::0``, ``GPU-uuid::1``, …"""


@dataclass(frozen=True)
class Device:
    """One GPU, or a part or share of one, as whoever measures it names it."""

    id: str
    """The driver's UUID (``GPU-…``, ``MIG-…``); ``GPU-…::0`` for a share."""
    index: int
    name: str
    memory_bytes: int
    simulated: bool = False


@dataclass(frozen=True)
class ProcessSample:
    """One process on a device."""

    pid: int
    name: str
    memory_bytes: int
    utilisation_percent: float | None = None
    """Its own share of the device's time. None: the driver does not tell."""
    pod_uid: str | None = None
    """The pod that it belongs to. None: no pod, or nobody asked."""


@dataclass(frozen=True)
class Sample:
    """One look at one device."""

    device_id: str
    at: float
    """UNIX seconds."""
    utilisation_percent: float
    memory_bytes: int
    memory_total_bytes: int
    processes: tuple[ProcessSample, ...] = ()
    simulated: bool = False
    power_watts: float | None = None


class Telemetry(Protocol):
    """Something that measures GPUs."""

    async def sample(self) -> Sequence[Sample]:
        """Return one sample per device that answers. Never raises: no answer is an empty one."""


Allocations = Callable[[str, str, str], tuple[Device, ...] | None]
"""``allocations(node, namespace, pod)``: which GPUs a pod has, where a cluster chose them.

None: not known now (keep what was known). Empty: known, and it has none.
"""


class NoTelemetry:
    """The ports of a place where nothing is measured: nothing is known, and nobody is reclaimed."""

    async def sample(self) -> Sequence[Sample]:
        return ()

    def allocations(self, node: str, namespace: str, pod: str) -> tuple[Device, ...] | None:
        return None


def whole(device_id: str) -> str:
    """Return the device that ``device_id`` is, or is a share of."""
    return device_id.partition(REPLICA_MARK)[0]
