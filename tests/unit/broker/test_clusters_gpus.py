"""GPUs that somebody else chooses (a cluster): which ones they are is learned late, and doubted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from gpuhub.backends.base import DeviceOffer, Phase, PoolOffer, WorkerOrder, WorkerSeen
from gpulease.states import EndReason, LeaseState
from tests.fakes import GB, WorkersThatStart
from tests.unit.broker.conftest import ANN, BOB, MakePlace, Place

ONE = DeviceOffer("GPU-1", 0, "NVIDIA H100", 80 * GB)
TWO = DeviceOffer("GPU-2", 1, "NVIDIA H100", 80 * GB)


class ClusterChooses(WorkersThatStart):
    """Its offers name no device; which GPUs a worker has is said by ``given``, when a test says so."""

    def __init__(self, total: int = 2) -> None:
        super().__init__(PoolOffer("h100", "NVIDIA H100", 80 * GB, total))
        self.given: dict[str, tuple[DeviceOffer, ...]] = {}
        self.waits: set[str] = set()

    async def start(self, order: WorkerOrder) -> None:
        assert order.device_ids == ()
        await super().start(order)

    async def observe(self) -> Mapping[str, WorkerSeen]:
        seen = dict(await super().observe())
        for lease_id, devices in self.given.items():
            if lease_id in seen:
                ids = tuple(device.id for device in devices)
                seen[lease_id] = replace(seen[lease_id], devices=devices, device_ids=ids)
        for lease_id in self.waits & seen.keys():
            words = "It waits for a free GPU in the cluster."
            seen[lease_id] = WorkerSeen(lease_id, Phase.STARTING, message=words, waiting=True)
        return seen

    def _grow(self, lease_id: str, worker: WorkerSeen) -> None:
        if lease_id not in self.waits:
            super()._grow(lease_id, worker)


@pytest.fixture
async def place(make_place: MakePlace) -> Place:
    place = await make_place(ClusterChooses(), gpus_at_once=2)
    place.gpus.known = {"GPU-1", "GPU-2"}
    return place


def cluster(place: Place) -> ClusterChooses:
    assert isinstance(place.backend, ClusterChooses)
    return place.backend


async def test_a_lease_is_active_before_its_gpu_is_known_and_nobody_judges_it(place: Place) -> None:
    lease = await place.active()
    assert (lease.state, lease.devices) == (LeaseState.ACTIVE, [])
    await place.later(3600, step=30)
    seen = await place.see(lease)
    assert (seen.state, seen.warning, seen.idle_seconds, seen.usage) == (LeaseState.ACTIVE, None, None, None)


async def test_a_gpu_that_is_named_late_is_stored_and_its_silence_counts_from_then(place: Place) -> None:
    lease = await place.active()
    await place.later(900)
    cluster(place).given[lease.id] = (ONE,)
    await place.later(300)
    seen = await place.see(lease)
    assert [device.name for device in seen.devices] == ["NVIDIA H100"]
    assert seen.warning is None
    await place.later(320)
    assert (await place.see(lease)).warning is not None
    await place.later(320)
    assert (await place.see(lease)).reason is EndReason.IDLE


async def test_of_two_gpus_one_that_is_named_alone_says_nothing(place: Place) -> None:
    lease = await place.active(gpus=2)
    cluster(place).given[lease.id] = (ONE,)
    await place.later(1200, step=30)
    assert (await place.see(lease)).devices == []
    cluster(place).given[lease.id] = (ONE, TWO)
    await place.later(10)
    assert len((await place.see(lease)).devices) == 2


async def test_a_new_broker_knows_the_gpu_but_judges_only_once_the_node_says_it_again(place: Place) -> None:
    lease = await place.active()
    cluster(place).given[lease.id] = (ONE,)
    await place.later(20)
    cluster(place).given.clear()  # the node's agent is away, and somebody else speaks of that GPU
    await place.restart()
    await place.later(2000, step=10)
    seen = await place.see(lease)
    assert [device.id for device in seen.devices] == ["GPU-1"]
    assert (seen.warning, seen.idle_seconds, seen.usage) == (None, None, None)
    cluster(place).given[lease.id] = (ONE,)
    await place.later(620)
    assert (await place.see(lease)).warning is not None


@pytest.mark.parametrize("other", [(), (TWO,), (ONE, TWO)], ids=["none", "another", "more"])
async def test_while_the_node_does_not_confirm_the_gpu_a_warning_is_taken_back(
    place: Place, other: tuple[DeviceOffer, ...]
) -> None:
    lease = await place.active()
    cluster(place).given[lease.id] = (ONE,)
    await place.later(650)
    assert (await place.see(lease)).warning is not None
    cluster(place).given[lease.id] = other
    await place.later(30)
    assert (await place.see(lease)).warning is None
    await place.later(3600, step=30)
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_waiting_for_room_is_told_and_takes_no_time_of_the_start(place: Place) -> None:
    lease = await place.ask(ANN)
    cluster(place).waits.add(lease.id)
    await place.later(5000, step=30)
    seen = await place.see(lease)
    assert (seen.state, seen.message) == (LeaseState.STARTING, "It waits for a free GPU in the cluster.")
    cluster(place).waits.clear()
    await place.later(10)
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_whoever_waits_for_room_can_give_up_at_any_moment(place: Place) -> None:
    lease = await place.ask(ANN)
    cluster(place).waits.add(lease.id)
    await place.later(60)
    await place.service.release(ANN, lease.id)
    await place.later(10)
    assert place.backend.stops != []
    cluster(place).waits.clear()
    await place.later(10)
    assert (await place.see(lease)).state is LeaseState.ENDED


async def test_a_waiting_worker_counts_as_holding_what_it_was_granted(place: Place) -> None:
    lease = await place.ask(ANN, gpus=2)
    cluster(place).waits.add(lease.id)
    await place.later(30)
    behind = await place.ask(BOB)
    await place.later(30)
    assert (await place.see(behind, BOB)).state is LeaseState.QUEUED


async def test_a_new_broker_does_not_time_out_a_start_that_was_waiting(place: Place) -> None:
    lease = await place.ask(ANN)
    cluster(place).waits.add(lease.id)
    await place.later(1000, step=30)
    await place.restart()
    await place.later(1000, step=30)
    cluster(place).waits.clear()
    await place.later(10)
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_operators_can_count_the_leases_of_whose_use_nothing_is_known(place: Place) -> None:
    def counted() -> bool:
        return b'gpuhub_leases_unmeasured_count{pool="h100"} 1.0' in place.broker.metrics.render()

    lease = await place.active()
    assert counted()
    cluster(place).given[lease.id] = (ONE,)
    await place.later(15)
    assert not counted()
    place.gpus.known.clear()
    await place.later(20)
    assert counted()
