"""Telemetry that agents of nodes push: the broker's memory of what each node said last.

Promises: what an agent says counts for its own node only. A device belongs to the node that has named it
alone for a minute, while that one is alive; of one that two nodes name before (one of them lies) nothing
is known. What is old says nothing (no sample, no allocation); use between two looks of the sampler is
never lost; memory is bounded by the nodes that are alive. Times of nodes never count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from gpuhub.telemetry.base import Device, ProcessSample, Sample, whole
from gpuhub.telemetry.report import DeviceReport, NodeReport, SampleReport

FRESH_SECONDS = 15.0
"""An older look says nothing about now: three pushes of an agent have failed."""
ALIVE_SECONDS = 60.0
"""A node that is silent for longer has lost its devices to whoever names them next."""
SETTLED_SECONDS = 60.0
"""A device is its node's own when no other one has named it for so long. After a restart of the broker the
first word may be a liar's: the true node speaks within a few pushes."""
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
class _Owner:
    """Whose a device is."""

    node: str
    since: float
    """When it began to be named by that node alone."""
    named_at: float
    rivals: dict[str, float] = field(default_factory=dict)
    """Other nodes that name it, and when they did last."""


@dataclass
class _Node:
    at: float
    """Of the steady clock."""
    devices: dict[str, DeviceReport] = field(default_factory=dict)
    """Also those that do not answer now: a lost GPU is still a pod's."""
    pods: dict[tuple[str, str], tuple[str, ...]] | None = None
    """As the kubelet said last: a pod's devices do not change while it lives."""
    kubelet_answers: bool = False
    heard: dict[str, _Heard] = field(default_factory=dict)
    problem: str | None = None


class PushedTelemetry:
    """The telemetry port over reports that come in (`take`)."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, stopwatch: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._stopwatch = clock, stopwatch
        self._nodes: dict[str, _Node] = {}
        self._owners: dict[str, _Owner] = {}
        self._contested: set[str] = set()
        """Devices whose owner has rivals."""

    def take(self, node: str, report: NodeReport) -> str | None:
        """Take what a node's agent says. Returns what is wrong, where that is news. Raises `ForeignDevice`.

        A report that names a device which is another node's counts for nothing at all.
        """
        now = self._stopwatch()
        self._bury(now)
        named = report.named()
        for device in sorted(named):
            owner = self._owners.get(device)
            if owner is not None and owner.node != node and self._settled(owner, now):
                raise ForeignDevice(f"the device {device} belongs to another node")
        known = self._nodes.get(node)
        devices = ({} if known is None else known.devices) | {one.id: one for one in report.devices}
        if len(named | devices.keys()) > MAX_DEVICES_EVER:
            raise ForeignDevice(f"a node that lives has no more than {MAX_DEVICES_EVER} devices")
        if known is None:
            known = self._nodes[node] = _Node(now)
        known.at, known.devices = now, devices
        disputed = self._claim(node, named, now)
        known.kubelet_answers = report.allocations is not None
        if report.allocations is not None:
            known.pods = {(pod.namespace, pod.pod): tuple(pod.devices) for pod in report.allocations}
        received = self._clock()
        for look in report.looks:
            if look.age_seconds <= FRESH_SECONDS:
                for sample in look.samples:
                    self._hear(known, sample, received - look.age_seconds)
        problem = " ".join(filter(None, (report.problem, disputed))) or None
        news = problem if problem != known.problem else None
        known.problem = problem
        return news

    @staticmethod
    def _settled(owner: _Owner, now: float) -> bool:
        return not owner.rivals and now - owner.since >= SETTLED_SECONDS

    def _claim(self, node: str, named: Collection[str], now: float) -> str | None:
        """Note whose devices these are. Returns a sentence where another node names one too."""
        disputes = set()
        for device in sorted(named):
            owner = self._owners.setdefault(device, _Owner(node, now, now))
            if owner.node == node:
                owner.named_at = now
            else:
                owner.rivals[node] = now
            if owner.rivals:
                owner.since = now
                self._contested.add(device)
                disputes.add(f"{device} ({', '.join(sorted({owner.node, *owner.rivals}))})")
        if not disputes:
            return None
        named_twice = "; ".join(sorted(disputes)[:4])
        return f"Several nodes name the same GPU, so nothing is known of it: {named_twice}."

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
                found += [_folded(heard) for name, heard in node.heard.items() if not self._disputed(name)]
            node.heard.clear()
        return found

    def allocations(self, node: str, namespace: str, pod: str) -> tuple[Device, ...] | None:
        """Return a pod's devices as the agent of ``node`` says; None where it does not (any more)."""
        known = self._nodes.get(node)
        if known is None or known.pods is None or self._stopwatch() - known.at > FRESH_SECONDS:
            return None
        given = known.pods.get((namespace, pod))
        if given is None and not known.kubelet_answers:
            return None
        found = []
        for device_id in given or ():
            device = known.devices.get(whole(device_id))
            if device is None or self._disputed(device_id):
                return None  # allocated, but the driver has not named it yet, or not it alone
            found.append(Device(device_id, device.index, device.name, device.memory_bytes, device.simulated))
        return tuple(found)

    def _disputed(self, device_id: str) -> bool:
        return whole(device_id) in self._contested

    def _bury(self, now: float) -> None:
        gone = {name for name, node in self._nodes.items() if now - node.at > ALIVE_SECONDS}
        for name in gone:
            del self._nodes[name]
        for device in list(self._owners if gone else self._contested):
            owner = self._owners[device]
            for rival, at in list(owner.rivals.items()):
                if rival in gone or now - at > ALIVE_SECONDS:
                    del owner.rivals[rival]
            if owner.rivals and (owner.node in gone or now - owner.named_at > ALIVE_SECONDS):
                heir = min(owner.rivals)
                self._owners[device] = owner = _Owner(heir, now, owner.rivals.pop(heir), owner.rivals)
            elif owner.node in gone:
                del self._owners[device]
            if not owner.rivals:
                self._contested.discard(device)

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
