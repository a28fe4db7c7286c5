"""Simulated GPUs that behave truthfully: what their worker's processes do on the CPU is their use.

Utilisation is the share of one core that the processes of the lease's worker used since the last
look (its main process left out: the worker's own bookkeeping is nobody's work), cut at 100, and 0
below `QUIET_PERCENT`: a kernel that waits still wakes up now and then. Memory is their resident
memory. So idleness, warnings and charts can be tried on any machine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpuhub.telemetry.base import ProcessSample, Sample
from gpuhub.telemetry.inventory import Gpu

QUIET_PERCENT = 3.0


class WorkerProcess(Protocol):
    """What must be known of one process (the launcher's ``ProcessSeen`` fits)."""

    @property
    def pid(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def cpu_seconds(self) -> float: ...
    @property
    def rss_bytes(self) -> int: ...
    @property
    def main(self) -> bool: ...


ProcessSource = Callable[[str], Awaitable[Sequence[WorkerProcess]]]


@dataclass
class _Look:
    at: float
    cpu_seconds: dict[int, float]
    utilisation_percent: float


class SimulatedTelemetry:
    """The telemetry port for GPUs that do not exist.

    ``processes`` returns the processes of the worker that holds a device, and raises when that
    cannot be told; then there is no sample.
    """

    def __init__(
        self,
        gpus: Sequence[Gpu],
        processes: ProcessSource,
        *,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = tuple(gpus)
        self._processes = processes
        self._clock = clock
        self._stopwatch = stopwatch
        self._last: dict[str, _Look] = {}

    async def sample(self) -> Sequence[Sample]:
        found = []
        for gpu in self._gpus:
            try:
                processes = [process for process in await self._processes(gpu.id) if not process.main]
            except Exception:  # noqa: BLE001 - whatever the source met: nothing is known of this GPU now
                self._last.pop(gpu.id, None)
                continue
            found.append(self._look(gpu, processes))
        return found

    def _look(self, gpu: Gpu, processes: Sequence[WorkerProcess]) -> Sample:
        now = self._stopwatch()
        last = self._last.get(gpu.id)
        spent = {process.pid: process.cpu_seconds for process in processes}
        if last is None or now <= last.at:
            utilisation = last.utilisation_percent if last is not None else 0.0
        else:
            # A process that was not there at the last look has spent all of its time since then.
            used = sum(max(0.0, seconds - last.cpu_seconds.get(pid, 0.0)) for pid, seconds in spent.items())
            utilisation = min(100.0, 100.0 * used / (now - last.at))
            if utilisation < QUIET_PERCENT:
                utilisation = 0.0
        if last is None or now > last.at:
            self._last[gpu.id] = _Look(now, spent, utilisation)
        return Sample(
            device_id=gpu.id,
            at=self._clock(),
            utilisation_percent=round(utilisation, 1),
            memory_bytes=sum(process.rss_bytes for process in processes),
            memory_total_bytes=gpu.memory_bytes,
            processes=tuple(
                ProcessSample(process.pid, process.name, process.rss_bytes) for process in processes
            ),
            simulated=True,
        )
