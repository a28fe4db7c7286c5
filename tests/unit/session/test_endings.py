"""A lease ends: notebooks come back, the broker hears of it, and people are told."""

from __future__ import annotations

import asyncio
import signal

import pytest

from gpulease import errors
from gpulease.states import EndReason, LeaseState
from gpusession.kernels.ports import AgentError
from tests.unit.session.conftest import Desk, process_of, until


async def acknowledged(desk: Desk) -> list[tuple[str, str, int, int]]:
    await until(lambda: desk.broker.acks, "the summary")
    (_, word) = desk.broker.acks[-1]
    return [(one.kernel, one.outcome, one.kept, one.left) for one in word.kernels]


async def test_notebooks_come_back_with_their_variables_and_the_broker_hears_how(desk: Desk) -> None:
    endpoints = {}
    for name in ("k1", "k2"):
        _, endpoints[name] = await desk.open(name, x=1, log="FILE")
        await desk.flip("worker", name, consent=True)
        process_of(endpoints[name]).names.update(y=2, other="FILE")
    await desk.broker.begin_end("lease1", EndReason.IDLE)
    assert sorted(await acknowledged(desk)) == [("k1", "moved", 2, 1), ("k2", "moved", 2, 1)]
    for name, endpoint in endpoints.items():
        assert process_of(endpoint).placement == "server"
        assert process_of(endpoint).names == {"x": 1, "y": 2}
        notice = desk.session.kernel(name).notices.list()[-1]
        assert notice.kind == "moved-back"
        assert "because the GPU was idle. 1 variable stayed behind." in notice.message
    assert {info.reason for info in desk.disk.infos.values()} == {"move", "idle"}


async def test_a_running_cell_is_interrupted_when_the_deadline_nears_and_named(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    process = process_of(endpoint)
    endpoint.run_cell("\ntrain(epochs=100)\nmore()")
    await desk.broker.begin_end("lease1", EndReason.PREEMPTED, seconds=1.0)
    await until(lambda: signal.SIGINT in process.signals, "the interrupt")
    endpoint.end_cell()
    assert await acknowledged(desk) == [("k1", "moved", 1, 0)]
    cut = next(one for one in kernel.notices.list() if one.kind == "cut")
    assert "“train(epochs=100)”" in cut.message
    assert "higher priority" in cut.message


async def test_a_cell_that_ends_in_time_is_not_interrupted(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    process = process_of(endpoint)
    endpoint.run_cell("quick()")
    await desk.broker.begin_end("lease1", EndReason.RELEASED, seconds=60.0)
    await asyncio.sleep(0.1)
    endpoint.end_cell()
    assert await acknowledged(desk) == [("k1", "moved", 1, 0)]
    assert signal.SIGINT not in process.signals
    assert "cut" not in [one.kind for one in kernel.notices.list()]


async def test_a_notebook_that_cannot_come_back_is_reported_as_lost_at_the_deadline(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    desk.faults.fail["save"] = AgentError("storage-full", "No room is left.")
    await desk.broker.begin_end("lease1", EndReason.REVOKED, seconds=1.5)
    assert await acknowledged(desk) == [("k1", "lost", 0, 0)]
    assert process_of(endpoint).placement == "worker"


async def test_a_failure_is_tried_again_while_there_is_time(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    desk.faults.fail["load"] = AgentError("internal", "Once.")
    desk.faults.then["load"] = lambda: asyncio.get_running_loop().call_later(
        0.3, desk.faults.fail.pop, "load"
    )
    await desk.broker.begin_end("lease1", EndReason.IDLE, seconds=20.0)
    assert await acknowledged(desk) == [("k1", "moved", 1, 0)]
    assert process_of(endpoint).placement == "server"


async def test_a_notebook_on_its_way_to_the_gpu_turns_back_without_being_asked(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    desk.faults.hang.add("prove")
    await desk.session.ask("k1", "worker")
    await desk.faults.until("prove")
    await desk.broker.begin_end("lease1", EndReason.REVOKED, seconds=30.0)
    await until(lambda: desk.session.kernel("k1")._current is not None, "the move")
    desk.faults.resume()
    assert await acknowledged(desk) == []
    status = await desk.settled()
    assert status.placement == "server"
    assert process_of(endpoint).names == {"x": 1}
    assert not endpoint.held


async def test_an_ending_cannot_be_cancelled_or_flipped_around(desk: Desk) -> None:
    kernel, _ = await desk.open(x=1)
    await desk.flip("worker")
    desk.faults.reached.clear()
    desk.faults.hang.add("save")
    await desk.broker.begin_end("lease1", EndReason.IDLE)
    await desk.faults.until("save")
    with pytest.raises(errors.Conflict):
        await desk.session.cancel("k1")
    with pytest.raises(errors.MoveInProgress):
        await desk.session.ask("k1", "worker")
    desk.faults.resume()
    assert (await desk.settled()).placement == "server"
    assert kernel.status().move.asked is False


async def test_a_move_back_that_was_under_way_is_taken_over_by_the_ending(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1, log="FILE")
    await desk.flip("worker", consent=True)
    process_of(endpoint).names["late"] = "FILE"
    desk.faults.hang.add("check")
    await desk.session.ask("k1", "server")
    await until(lambda: kernel.status().move.step == "checking", "the move")
    await desk.broker.begin_end("lease1", EndReason.IDLE, seconds=30.0)
    await until(lambda: kernel.status().move.asked is False, "the ending to take it over")
    desk.faults.resume()
    assert await acknowledged(desk) == [("k1", "moved", 1, 1)]


async def test_a_lease_without_notebooks_is_acknowledged_at_once(desk: Desk) -> None:
    await desk.session.gpu_on(None)
    await desk.broker.begin_end("lease1", EndReason.EXPIRED)
    assert await acknowledged(desk) == []


async def test_the_last_notebook_that_leaves_gives_the_gpu_back(desk: Desk) -> None:
    for name in ("k1", "k2"):
        await desk.open(name, x=1)
        await desk.flip("worker", name)
    await desk.flip("server", "k1")
    await asyncio.sleep(0.1)
    assert desk.broker.leases["lease1"].state is LeaseState.ACTIVE
    await desk.flip("server", "k2")
    await until(lambda: desk.broker.leases["lease1"].state is LeaseState.ENDED, "the release")


async def test_who_flips_while_the_gpu_is_just_going_back_gets_the_next_one(desk: Desk) -> None:
    await desk.open(x=1)
    await desk.flip("worker")
    desk.broker.release_may_end.clear()
    await desk.flip("server")
    await desk.broker.releasing.wait()
    desk.session.kernel("k1").ask("worker")
    await asyncio.sleep(0.1)
    desk.broker.release_may_end.set()
    status = await desk.settled()
    assert (status.placement, status.lease) == ("worker", "lease2")


async def test_a_notebook_that_is_shut_down_on_the_gpu_gives_it_back(desk: Desk) -> None:
    await desk.open(x=1)
    await desk.flip("worker")
    await desk.session.closed("k1")
    await until(lambda: desk.broker.leases["lease1"].state is LeaseState.ENDED, "the release")


async def test_a_gpu_that_a_person_turned_on_stays_when_notebooks_leave_it(desk: Desk) -> None:
    await desk.session.gpu_on(None)
    await desk.open(x=1)
    await desk.flip("worker")
    await desk.flip("server")
    await asyncio.sleep(0.1)
    assert desk.broker.leases["lease1"].state is LeaseState.ACTIVE


async def test_a_cancelled_wait_takes_the_request_back(desk: Desk) -> None:
    desk.broker.generous = False
    await desk.open(x=1)
    status = await desk.session.ask("k1", "worker")
    assert (status.placement, status.move.step) == ("server", "waiting")
    await until(lambda: desk.broker.leases, "the request")
    await desk.session.cancel("k1")
    assert (await desk.settled()).move.step == "cancelled"
    await until(lambda: desk.broker.leases["lease1"].state is LeaseState.ENDED, "the request to be gone")


async def test_a_refused_gpu_is_said_with_its_reason_and_changes_nothing(desk: Desk) -> None:
    desk.broker.refuse = errors.LimitReached("You use 1 of 1 GPUs already.")
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    status = await desk.flip("worker")
    assert (status.placement, status.move.step, status.move.error) == ("server", "failed", "limit-reached")
    assert "You use 1 of 1 GPUs already." in status.move.message
    assert process_of(endpoint) is before
