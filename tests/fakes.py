"""Stand-ins for the broker's ports, each named after how it behaves; and a clock moved by hand.

They keep the port's promises (``tests/contracts/test_backend.py`` checks that) except for the one
thing that their name says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gpuhub.backends.base import (
    BackendError,
    DeviceOffer,
    Phase,
    PoolOffer,
    WorkerOrder,
    WorkerSeen,
)
from gpuhub.telemetry.base import ProcessSample, Sample

GB = 10**9
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class ClockByHand:
    """Both clocks; time passes when a test says so. `jump` moves the wall's alone."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def pass_seconds(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def jump(self, **by: float) -> None:
        self._now += timedelta(**by)


def gpus(count: int, pool: str = "simulated", memory_bytes: int = 16 * GB) -> PoolOffer:
    """A pool of ``count`` simulated GPUs."""
    devices = tuple(
        DeviceOffer(f"{pool.upper()}-{n}", n, f"simulated GPU {n}", memory_bytes, simulated=True)
        for n in range(count)
    )
    return PoolOffer(pool, f"{pool} GPU", memory_bytes, count, simulated=True, devices=devices)


class WorkersThatStart:
    """A backend whose workers are ready at the second look, and stop when they are told.

    ``servers`` are the (user, server) that run; None: it cannot be told here.
    """

    def __init__(self, *pools: PoolOffer) -> None:
        self.pools: tuple[PoolOffer, ...] = pools or (gpus(1),)
        self.workers: dict[str, WorkerSeen] = {}
        self.orders: dict[str, list[WorkerOrder]] = {}
        self.stops: list[tuple[str, float]] = []
        self.forgotten: list[str] = []
        self.servers: set[tuple[str, str]] | None = None
        self.closed = False

    async def offers(self) -> tuple[PoolOffer, ...]:
        return self.pools

    async def start(self, order: WorkerOrder) -> None:
        self.orders.setdefault(order.lease_id, []).append(order)
        if order.lease_id in self.workers:
            return
        busy = {
            device
            for worker in self.workers.values()
            if worker.phase is not Phase.EXITED
            for device in worker.device_ids
        }
        if busy & set(order.device_ids):
            raise BackendError("the GPU is in use")
        self.workers[order.lease_id] = WorkerSeen(order.lease_id, Phase.STARTING, device_ids=order.device_ids)

    async def stop(self, lease_id: str, *, grace_seconds: float) -> None:
        self.stops.append((lease_id, grace_seconds))
        if lease_id in self.workers:
            self._stop(lease_id)

    async def observe(self) -> Mapping[str, WorkerSeen]:
        seen = dict(self.workers)
        for lease_id, worker in seen.items():
            self._grow(lease_id, worker)
        return seen

    async def forget(self, lease_id: str) -> None:
        worker = self.workers.get(lease_id)
        if worker is not None and worker.phase is Phase.EXITED:
            del self.workers[lease_id]
            self.forgotten.append(lease_id)

    async def server_running(self, user: str, server: str) -> bool | None:
        return None if self.servers is None else (user, server) in self.servers

    async def close(self) -> None:
        self.closed = True

    # --- by hand

    def exit(self, lease_id: str, message: str = "The worker has ended.") -> None:
        """The worker ends by itself."""
        worker = self.workers[lease_id]
        self.workers[lease_id] = replace(worker, phase=Phase.EXITED, address=None, message=message)

    def _grow(self, lease_id: str, worker: WorkerSeen) -> None:
        if worker.phase is Phase.STARTING:
            self.workers[lease_id] = replace(worker, phase=Phase.READY, address=f"unix:/run/{lease_id}")

    def _stop(self, lease_id: str) -> None:
        self.exit(lease_id)


class WorkerNeverStarts(WorkersThatStart):
    """Its workers stay in starting for good."""

    def _grow(self, lease_id: str, worker: WorkerSeen) -> None:
        return


class WorkerDiesAtStart(WorkersThatStart):
    """Its workers exit instead of getting ready."""

    def _grow(self, lease_id: str, worker: WorkerSeen) -> None:
        if worker.phase is Phase.STARTING:
            self.exit(lease_id, "The worker could not be started in this environment.")


class WorkerNeverStops(WorkersThatStart):
    """Its workers go on although they were told to stop, until `give_in`."""

    def _stop(self, lease_id: str) -> None:
        worker = self.workers[lease_id]
        if worker.phase is not Phase.EXITED:
            self.workers[lease_id] = replace(worker, phase=Phase.STOPPING, address=None)

    def give_in(self, lease_id: str) -> None:
        self.exit(lease_id)


class NodeVanishes(WorkersThatStart):
    """A place that is gone after `vanish`: no worker is seen, no GPU is on offer."""

    def vanish(self) -> None:
        self.workers.clear()
        self.pools = tuple(replace(pool, total=0, devices=()) for pool in self.pools)


class StartFails(WorkersThatStart):
    """Its next ``failures`` starts fail."""

    def __init__(self, *pools: PoolOffer, failures: int = 3) -> None:
        super().__init__(*pools)
        self.failures = failures

    async def start(self, order: WorkerOrder) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise BackendError("it could not be started now")
        await super().start(order)


class BackendAway(WorkersThatStart):
    """A backend that answers nothing while ``away``; its workers go on meanwhile."""

    def __init__(self, *pools: PoolOffer) -> None:
        super().__init__(*pools)
        self.away = False

    def _answer(self) -> None:
        if self.away:
            raise BackendError("no answer")

    async def offers(self) -> tuple[PoolOffer, ...]:
        self._answer()
        return await super().offers()

    async def start(self, order: WorkerOrder) -> None:
        self._answer()
        await super().start(order)

    async def stop(self, lease_id: str, *, grace_seconds: float) -> None:
        self._answer()
        await super().stop(lease_id, grace_seconds=grace_seconds)

    async def observe(self) -> Mapping[str, WorkerSeen]:
        self._answer()
        return await super().observe()

    async def server_running(self, user: str, server: str) -> bool | None:
        return None if self.away else await super().server_running(user, server)


class GpusByHand:
    """Telemetry that says what a test wants. Devices that are not ``known`` do not answer."""

    def __init__(self, clock: ClockByHand, *device_ids: str) -> None:
        self._clock = clock
        self.known: set[str] = set(device_ids)
        self.utilisation: dict[str, float] = {}
        self.processes: dict[str, dict[int, int]] = {}
        """By device: the memory of each process."""

    async def sample(self) -> Sequence[Sample]:
        return [
            Sample(
                device_id=device,
                at=self._clock.now().timestamp(),
                utilisation_percent=self.utilisation.get(device, 0.0),
                memory_bytes=sum(self.processes.get(device, {}).values()),
                memory_total_bytes=16 * GB,
                processes=tuple(
                    ProcessSample(pid, "python", size) for pid, size in self.processes.get(device, {}).items()
                ),
                simulated=True,
            )
            for device in sorted(self.known)
        ]
