"""A lease's life through the whole broker: asked, granted, started, used, ended, recorded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpulease import errors
from gpulease.models import Acknowledge
from gpulease.states import EndReason, LeaseState
from tests.builders import KEY
from tests.fakes import (
    START,
    BackendAway,
    NodeVanishes,
    StartFails,
    WorkerDiesAtStart,
    WorkerNeverStarts,
    WorkerNeverStops,
    WorkersThatStart,
    gpus,
)
from tests.unit.broker.conftest import ANN, BOB, CYD, OPERATOR, MakePlace, Place


async def test_a_request_is_queued_then_granted_started_and_active(place: Place) -> None:
    asked = await place.ask()
    assert (asked.state, asked.position.place, asked.needs_key) == (LeaseState.QUEUED, 1, False)
    await place.turn()
    lease = await place.see(asked)
    assert lease.state is LeaseState.ACTIVE
    assert [device.name for device in lease.devices] == ["simulated GPU 0"]
    assert lease.link.address == "unix:/run/lease1"
    assert lease.link.host_key == "ssh-ed25519 host"
    assert lease.ends_at == START + timedelta(hours=12)
    assert lease.revision > asked.revision
    [order] = place.backend.orders["lease1"]
    assert (order.user, order.device_ids, order.public_key) == ("ann", ("SIMULATED-0",), KEY)
    assert (order.host_key, order.grace_seconds) == ("host secret", 60)


async def test_the_workers_private_key_is_forgotten_once_it_runs(place: Place) -> None:
    lease = await place.active()
    stored = await place.store.leases.get(lease.id)
    assert stored.host_secret is None
    assert stored.host_key == "ssh-ed25519 host"


async def test_only_the_owners_server_learns_the_way_to_the_worker(place: Place) -> None:
    lease = await place.active()
    assert (await place.service.lease(OPERATOR, lease.id)).link is None
    assert (await place.service.lease(BrowserOfAnn, lease.id)).link is None
    assert (await place.see(lease)).link is not None


async def test_a_granted_lease_without_a_key_waits_for_it(place: Place) -> None:
    lease = await place.active(public_key=None)
    assert (lease.state, lease.needs_key) == (LeaseState.STARTING, True)
    assert place.backend.orders == {}
    await place.service.set_key(ANN, lease.id, KEY)
    await place.turn()
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_a_key_that_never_comes_ends_the_lease_and_frees_the_gpu(place: Place) -> None:
    lease = await place.active(public_key=None)
    await place.later(200)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert "180 seconds" in ended.message
    assert (await place.service.pools(ANN))[0].free == 1


async def test_a_restarted_server_brings_a_new_key_to_the_running_worker(place: Place) -> None:
    lease = await place.active()
    other = KEY.replace("A", "B")
    await place.service.set_key(ANN, lease.id, other)
    await place.turn()
    assert [order.public_key for order in place.backend.orders[lease.id]] == [KEY, other]
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_a_release_waits_for_the_servers_word_before_the_worker_is_stopped(place: Place) -> None:
    lease = await place.active()
    ending = await place.service.release(ANN, lease.id)
    assert (ending.state, ending.ending.reason) == (LeaseState.ENDING, EndReason.RELEASED)
    assert ending.ending.deadline == place.clock.now() + timedelta(seconds=120)
    await place.later(30)
    assert place.backend.stops == []
    assert (await place.see(lease)).link is not None
    await place.service.acknowledge(ANN, lease.id, Acknowledge())
    await place.turn()
    assert place.backend.stops == [(lease.id, 60)]
    ended = await place.see(lease)
    assert (ended.state, ended.reason, ended.link) == (LeaseState.ENDED, EndReason.RELEASED, None)


async def test_without_the_servers_word_the_worker_is_stopped_at_the_deadline(place: Place) -> None:
    lease = await place.active()
    await place.service.release(ANN, lease.id)
    await place.later(115)
    assert place.backend.stops == []
    await place.later(10)
    assert (await place.see(lease)).state is LeaseState.ENDED


async def test_the_deadline_grows_with_the_memory_that_must_be_saved(place: Place) -> None:
    lease = await place.active()
    place.gpus.processes["SIMULATED-0"] = {1: 400 * 10**9}
    await place.sampler.look()
    ending = await place.service.release(ANN, lease.id)
    assert ending.ending.deadline == place.clock.now() + timedelta(seconds=480)


async def test_the_next_in_the_queue_gets_the_gpu_in_the_same_turn(place: Place) -> None:
    first = await place.active(ANN)
    second = await place.ask(BOB)
    await place.service.release(ANN, first.id)
    await place.service.acknowledge(ANN, first.id, Acknowledge())
    await place.turn()
    assert (await place.see(second)).state is LeaseState.ACTIVE


async def test_position_falls_when_someone_ahead_leaves(place: Place) -> None:
    await place.active(ANN)
    second, third = await place.ask(BOB), await place.ask(CYD)
    await place.turn()
    position = (await place.see(third)).position
    assert (position.place, position.ahead, position.waiting_for) == (2, 1, "gpu")
    assert position.message == "1 request is ahead of yours; the only simulated GPU is in use."
    cancelled = await place.service.release(BOB, second.id)
    assert (cancelled.state, cancelled.reason) == (LeaseState.ENDED, EndReason.CANCELLED)
    await place.turn()
    position = (await place.see(third)).position
    assert (position.place, position.message) == (1, "You are next; the only simulated GPU is in use.")
    assert "ann" not in position.message


async def test_waiting_has_no_time_limit(place: Place) -> None:
    first = await place.active(ANN)
    place.gpus.utilisation["SIMULATED-0"] = 50
    waiting = await place.ask(BOB)
    await place.later(11 * 3600, step=600)
    assert (await place.see(first)).state is LeaseState.ACTIVE
    assert (await place.see(waiting)).state is LeaseState.QUEUED


async def test_a_worker_that_never_gets_ready_ends_the_lease(make_place: MakePlace) -> None:
    place = await make_place(WorkerNeverStarts())
    lease = await place.active()
    await place.later(290)
    assert (await place.see(lease)).state is LeaseState.STARTING
    await place.later(20)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert "300 seconds" in ended.message
    assert place.backend.forgotten == [lease.id]


async def test_a_worker_that_dies_at_its_start_says_why(make_place: MakePlace) -> None:
    place = await make_place(WorkerDiesAtStart())
    lease = await place.active()
    assert (lease.state, lease.reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert "could not be started" in lease.message


async def test_a_worker_that_ends_unexpectedly_ends_its_lease(place: Place) -> None:
    lease = await place.active()
    place.backend.exit(lease.id, "The worker was ended by signal 9.")
    await place.turn()
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.FAILED)
    assert ended.message == "The worker was ended by signal 9."
    assert place.backend.workers == {}


async def test_a_worker_that_does_not_stop_keeps_its_gpu_taken_and_is_told_again(
    make_place: MakePlace,
) -> None:
    place = await make_place(WorkerNeverStops())
    lease = await place.active()
    waiting = await place.ask(BOB)
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.later(60)
    assert (await place.see(lease)).state is LeaseState.ENDING
    assert (await place.see(waiting)).state is LeaseState.QUEUED
    assert len(place.backend.stops) == 1
    await place.later(30)
    assert len(place.backend.stops) == 2
    place.backend.give_in(lease.id)
    await place.turn()
    assert (await place.see(waiting)).state is LeaseState.ACTIVE


async def test_a_node_that_vanishes_fails_its_leases_and_keeps_the_queue(make_place: MakePlace) -> None:
    place = await make_place(NodeVanishes())
    lease = await place.active()
    waiting = await place.ask(BOB)
    place.backend.vanish()
    await place.later(20)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.FAILED)
    position = (await place.see(waiting)).position
    assert (position.waiting_for, position.place) == ("pool", 1)
    assert position.message == "No GPU of this kind can be used at the moment. Your place is kept."


async def test_a_backend_that_is_away_ends_nothing(make_place: MakePlace) -> None:
    place = await make_place(BackendAway())
    lease = await place.active()
    place.backend.away = True
    await place.later(120)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    await place.service.release(ANN, lease.id)
    await place.later(200)
    assert (await place.see(lease)).state is LeaseState.ENDING
    place.backend.away = False
    await place.later(20)
    assert (await place.see(lease)).state is LeaseState.ENDED


async def test_a_start_that_fails_is_tried_again(make_place: MakePlace) -> None:
    place = await make_place(StartFails(failures=3))
    lease = await place.active()
    assert lease.state is LeaseState.STARTING
    await place.later(30)
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_the_history_says_who_held_what_for_how_long_and_why_it_ended(place: Place) -> None:
    lease = await place.active()
    place.gpus.utilisation["SIMULATED-0"] = 90
    await place.later(100)
    place.gpus.utilisation["SIMULATED-0"] = 0
    await place.later(50)
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    [used] = await place.store.history.records(START)
    assert (used.user, used.pool, used.gpus, used.reason) == ("ann", "simulated", 1, "released")
    assert used.devices == ("SIMULATED-0",)
    assert used.seconds_held == pytest.approx(150)
    assert used.seconds_busy == pytest.approx(95, abs=6)


async def test_a_cancelled_request_leaves_no_usage(place: Place) -> None:
    await place.active(ANN)
    waiting = await place.ask(BOB)
    await place.service.release(BOB, waiting.id)
    assert await place.store.history.records(START) == []


async def test_a_server_that_stops_ends_its_lease_at_once(place: Place) -> None:
    lease = await place.active()
    shown = await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="server-stopped"))
    assert (shown.state, shown.reason) == (LeaseState.ENDING, EndReason.SERVER_STOPPED)
    await place.turn()
    assert (await place.see(lease)).state is LeaseState.ENDED


async def test_a_server_that_is_gone_ends_its_lease_after_a_while(place: Place) -> None:
    place.backend.servers = {("ann", ""), ("bob", "")}
    lease, waiting = await place.active(ANN), await place.ask(BOB)
    await place.later(60)
    place.backend.servers = {("bob", "")}
    await place.later(5)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    await place.later(20)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, EndReason.SERVER_STOPPED)
    assert (await place.see(waiting)).state is LeaseState.ACTIVE


async def test_a_queued_lease_goes_with_its_server_and_stays_with_a_closed_browser(place: Place) -> None:
    place.backend.servers = {("ann", ""), ("bob", ""), ("cyd", "")}
    place.gpus.utilisation["SIMULATED-0"] = 10
    await place.active(ANN)
    goes, stays = await place.ask(BOB), await place.ask(CYD)
    place.backend.servers = {("ann", ""), ("cyd", "")}
    await place.later(60)
    assert (await place.see(goes)).reason is EndReason.SERVER_STOPPED
    assert (await place.see(stays)).position.place == 1


async def test_a_script_may_hold_a_lease_without_a_server(place: Place) -> None:
    place.backend.servers = set()
    lease = await place.active(BrowserOfAnn)
    await place.later(120)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    ending = await place.service.release(BrowserOfAnn, lease.id)
    assert ending.ending.deadline == place.clock.now(), "nobody is there to save"


async def test_an_operator_ends_somebody_elses_lease_as_revoked(place: Place) -> None:
    lease = await place.active()
    ending = await place.service.release(OPERATOR, lease.id)
    assert (ending.state, ending.reason) == (LeaseState.ENDING, EndReason.REVOKED)


async def test_a_second_release_changes_nothing(place: Place) -> None:
    lease = await place.active()
    first = await place.service.release(ANN, lease.id)
    place.clock.pass_seconds(10)
    assert (await place.service.release(ANN, lease.id)).ending == first.ending
    await place.service.acknowledge(ANN, lease.id, Acknowledge())
    await place.turn()
    ended = await place.service.release(ANN, lease.id)
    assert ended.state is LeaseState.ENDED
    assert await place.service.acknowledge(ANN, lease.id, Acknowledge()) == ended


async def test_an_acknowledgement_of_a_lease_that_goes_on_is_a_conflict(place: Place) -> None:
    lease = await place.active()
    with pytest.raises(errors.Conflict):
        await place.service.acknowledge(ANN, lease.id, Acknowledge())


async def test_a_lease_of_several_gpus_gets_them_all_and_nobody_overtakes(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(2)), gpus_at_once=2)
    one = await place.active(ANN)
    two, late = await place.ask(BOB, gpus=2), await place.ask(CYD)
    await place.turn()
    assert (await place.see(two)).state is LeaseState.QUEUED
    assert (await place.see(late)).state is LeaseState.QUEUED
    await place.service.acknowledge(ANN, one.id, Acknowledge(reason="released"))
    await place.turn()
    lease = await place.see(two)
    assert [device.id for device in lease.devices] == ["SIMULATED-0", "SIMULATED-1"]


BrowserOfAnn = type(ANN)("ann")
