"""``kill -9`` of the broker at any point: the next one finds everything, and ends what is nobody's."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpuhub.backends.base import WorkerOrder
from gpulease import errors
from gpulease.models import Acknowledge
from gpulease.states import EndReason, LeaseState, Observed, Wanted
from tests.builders import KEY
from tests.fakes import StartFails, WorkerNeverStarts, WorkerNeverStops
from tests.unit.broker.conftest import ANN, BOB, CYD, MakePlace, Place


async def test_queue_and_leases_survive_with_their_places(place: Place) -> None:
    lease = await place.active(ANN)
    second, third = await place.ask(BOB, key="k"), await place.ask(CYD)
    await place.restart()
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    assert (await place.see(second)).position.place == 1
    assert (await place.see(third)).position.place == 2
    assert (await place.ask(BOB, key="k")).id == second.id, "idempotency keys survive too"


async def test_a_grant_that_was_written_but_not_started_is_started(make_place: MakePlace) -> None:
    place = await make_place(StartFails(failures=1))
    lease = await place.ask()
    await place.broker.reconciler.reconcile()
    assert (await place.store.leases.get(lease.id)).observed is Observed.GRANTED
    await place.restart()
    await place.turn()
    seen = await place.see(lease)
    assert seen.state is LeaseState.ACTIVE
    assert place.backend.orders[lease.id][0].host_key == "host secret"


async def test_a_worker_that_got_ready_meanwhile_is_adopted(make_place: MakePlace) -> None:
    place = await make_place(WorkerNeverStarts())
    lease = await place.active()
    assert lease.state is LeaseState.STARTING
    await place.kill()
    worker = place.backend.workers[lease.id]
    super(WorkerNeverStarts, place.backend)._grow(lease.id, worker)
    await place.open()
    await place.turn()
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_an_end_that_had_begun_goes_on(place: Place) -> None:
    lease = await place.active()
    await place.service.release(ANN, lease.id)
    await place.restart()
    await place.later(60)
    assert (await place.see(lease)).state is LeaseState.ENDING
    await place.later(65)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.RELEASED)


async def test_a_stop_that_was_told_is_told_again_by_the_next_broker(make_place: MakePlace) -> None:
    place = await make_place(WorkerNeverStops())
    lease = await place.active()
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    await place.restart()
    await place.turn()
    assert len(place.backend.stops) == 2
    place.backend.give_in(lease.id)
    await place.turn()
    assert (await place.see(lease)).state is LeaseState.ENDED


async def test_a_worker_that_ended_while_nobody_looked_fails_its_lease(place: Place) -> None:
    lease = await place.active()
    await place.kill()
    place.backend.exit(lease.id, "The worker was ended by signal 9.")
    await place.open()
    await place.turn()
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.FAILED)
    [used] = await place.store.history.records(ended.created_at - timedelta(seconds=1))
    assert used.lease == lease.id


async def test_a_worker_of_an_unknown_lease_is_stopped_and_its_gpu_not_given_away(
    make_place: MakePlace,
) -> None:
    place = await make_place(WorkerNeverStops())
    await place.backend.start(order("stranger"))
    lease = await place.ask()
    await place.later(20)
    assert {lease_id for lease_id, _ in place.backend.stops} == {"stranger"}
    assert (await place.see(lease)).state is LeaseState.QUEUED
    place.backend.give_in("stranger")
    await place.turn()
    assert place.backend.forgotten == ["stranger"]
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_a_worker_of_a_lease_that_has_ended_is_stopped(place: Place) -> None:
    lease = await place.active()
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    await place.backend.start(order(lease.id))
    await place.later(10)
    assert place.backend.workers == {}


async def test_what_is_left_of_exited_workers_is_dropped(place: Place) -> None:
    await place.backend.start(order("old"))
    place.backend.exit("old")
    await place.turn()
    assert place.backend.forgotten == ["old"]


async def test_the_week_counts_what_was_held_before_the_restart(make_place: MakePlace) -> None:
    place = await make_place(gpu_hours_per_week=0.25, idle_after_seconds=100_000)
    lease = await place.active()
    await place.later(1000, step=20)
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    await place.restart()
    with pytest.raises(errors.LimitReached):
        await place.ask()


async def test_silence_is_counted_anew_after_a_restart(place: Place) -> None:
    lease = await place.active()
    await place.later(620)
    assert (await place.see(lease)).warning is not None
    await place.restart()
    await place.later(10)
    assert (await place.see(lease)).warning is None
    await place.later(620)
    assert (await place.see(lease)).warning is not None


async def test_a_limit_that_passed_while_the_broker_was_away_is_warned_of_first(place: Place) -> None:
    lease = await place.active()
    await place.kill()
    place.clock.pass_seconds(24 * 3600)
    await place.open()
    place.gpus.utilisation["SIMULATED-0"] = 60
    await place.later(5)
    seen = await place.see(lease)
    assert (seen.state, seen.warning.reason) == (LeaseState.ACTIVE, EndReason.EXPIRED)
    await place.later(310)
    assert (await place.see(lease)).reason is EndReason.EXPIRED


async def test_somebody_elses_write_is_never_overwritten(place: Place) -> None:
    """The owner releases between the look and the write: the reconciler's decision is thrown away."""
    lease = await place.active()
    record = place.broker.board.live[lease.id]
    await place.store.leases.change(
        record, lambda _record: {}, place.clock.now(), wanted=Wanted.RELEASED, reason=EndReason.RELEASED
    )
    await place.later(620)
    assert (await place.see(lease)).reason is EndReason.RELEASED


def order(lease_id: str) -> WorkerOrder:
    return WorkerOrder(lease_id, "ann", "", "simulated", 1, ("SIMULATED-0",), KEY, "secret", 60)
