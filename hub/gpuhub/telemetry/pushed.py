"""Telemetry that agents of nodes push: the broker's memory of what each node said last.

Promises: what an agent says counts for its own node only, and a device belongs to the node that named it
first while that one is alive; what is old says nothing (no sample, no allocation); use between two looks
of the sampler is never lost; memory is bounded by the nodes that are alive. Times of nodes never count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gpuhub.telemetry.base import Device, ProcessSample, Sample, whole
from gpuhub.telemetry.report import DeviceReport, NodeReport, SampleReport

FRESH_SECONDS = 15.0
"""An older look says nothing about now: three pushes of an agent have failed."""
ALIVE_SECONDS = 60.0
"""A node that is silent for longer has lost its devices to whoever names them next."""
MAX_DEVICES_EVER = 512
"""Of one node while it lives: parts get new UUIDs each time that a GPU is divided anew."""


class ForeignDevice(ValueError):
    """A node named a device of another one. The message is for the agent's log."""


@dataclass
class _Heard:
    """The looks at one device that the sampler has not taken yet, folded."""

    last: Sample
    total_percent: float
    count: int = 1


@dataclass
class _Node:
    at: float
    """Of the steady clock."""
    devices: dict[str, DeviceReport] = field(default_factory=dict)
    """Also those that do not answer now: a lost GPU is still a pod's."""
    pods: dict[tuple[str, str], tuple[str, ...]] | None = None
    heard: dict[str, _Heard] = field(default_factory=dict)
    problem: str | None = None


class PushedTelemetry:
    """The telemetry port over reports that come in (`take`)."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, stopwatch: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._stopwatch = clock, stopwatch
        self._nodes: dict[str, _Node] = {}
        self._owners: dict[str, str] = {}

    def take(self, node: str, report: NodeReport) -> str | None:
        """Take what a node's agent says. Returns its problem where that is news. Raises `ForeignDevice`.

        A report that names a foreign device counts for nothing at all.
        """
        now = self._stopwatch()
        self._bury(now)
        named = report.named()
        for device in sorted(named):
            owner = self._owners.get(device, node)
            if owner != node:
                raise ForeignDevice(f"the device {device} belongs to another node")
        known = self._nodes.get(node)
        devices = ({} if known is None else known.devices) | {one.id: one for one in report.devices}
        if len(named | devices.keys()) > MAX_DEVICES_EVER:
            raise ForeignDevice(f"a node that lives has no more than {MAX_DEVICES_EVER} devices")
        if known is None:
            known = self._nodes[node] = _Node(now)
        known.at, known.devices = now, devices
        self._owners.update(dict.fromkeys(named, node))
        known.pods = None
        if report.allocations is not None:
            known.pods = {(pod.namespace, pod.pod): tuple(pod.devices) for pod in report.allocations}
        received = self._clock()
        for look in report.looks:
            if look.age_seconds <= FRESH_SECONDS:
                for sample in look.samples:
                    self._hear(known, sample, received - look.age_seconds)
        news = report.problem if report.problem != known.problem else None
        known.problem = report.problem
        return news

    async def sample(self) -> Sequence[Sample]:
        """Return what came since the last call, one sample per device; nothing is told twice.

        Of several looks the newest counts, but its utilisation is the mean of all, and never 0 when the
        GPU was used in one of them.
        """
        now = self._stopwatch()
        self._bury(now)
        found = []
        for node in self._nodes.values():
            if now - node.at <= FRESH_SECONDS:
                found += [_folded(heard) for heard in node.heard.values()]
            node.heard.clear()
        return found

    def allocations(self, node: str, namespace: str, pod: str) -> tuple[Device, ...] | None:
        """Return a pod's devices as the agent of ``node`` says; None where it does not (any more)."""
        known = self._nodes.get(node)
        if known is None or known.pods is None or self._stopwatch() - known.at > FRESH_SECONDS:
            return None
        found = []
        for device_id in known.pods.get((namespace, pod), ()):
            device = known.devices.get(whole(device_id))
            if device is None:
                return None  # allocated, but the driver has not named it yet
            found.append(Device(device_id, device.index, device.name, device.memory_bytes, device.simulated))
        return tuple(found)

    def _bury(self, now: float) -> None:
        for name in [name for name, node in self._nodes.items() if now - node.at > ALIVE_SECONDS]:
            del self._nodes[name]
            for device in [device for device, owner in self._owners.items() if owner == name]:
                del self._owners[device]

    def _hear(self, node: _Node, said: SampleReport, at: float) -> None:
        device = node.devices.get(whole(said.device))
        if device is None:
            return  # of what it is a sample was never said
        sample = Sample(
            device_id=said.device,
            at=at,
            utilisation_percent=said.utilisation_percent,
            memory_bytes=said.memory_bytes,
            memory_total_bytes=device.memory_bytes,
            processes=tuple(
                ProcessSample(one.pid, one.name, one.memory_bytes, one.utilisation_percent, one.pod_uid)
                for one in said.processes
            ),
            simulated=device.simulated,
            power_watts=said.power_watts,
        )
        heard = node.heard.get(said.device)
        if heard is None:
            node.heard[said.device] = _Heard(sample, sample.utilisation_percent)
        else:
            heard.last = sample
            heard.total_percent += sample.utilisation_percent
            heard.count += 1


def _folded(heard: _Heard) -> Sample:
    mean = heard.total_percent / heard.count
    used = max(mean, 1.0) if heard.total_percent > 0 else 0.0
    return replace(heard.last, utilisation_percent=min(100.0, used))
