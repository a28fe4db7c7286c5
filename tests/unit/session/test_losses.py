"""What a notebook becomes when its worker, or its process, is lost."""

from __future__ import annotations

import asyncio

import pytest

from gpulease.states import EndReason
from gpusession.kernels.ports import LINK_LOST, AgentError
from tests.unit.session.conftest import Desk, process_of, until


async def lost(desk: Desk, kernel_id: str = "k1") -> None:
    """Cut the link, and wait until the notebook goes on."""
    desk.workers[-1].cut()
    await until(lambda: desk.session.kernel(kernel_id).placement == "server", "the way back")
    await desk.settled(kernel_id)


async def move_for_good(desk: Desk) -> None:
    """Move to the GPU, and get a first cell done there: from then on nothing is parked."""
    await desk.flip("worker")
    kernel = desk.session.kernel("k1")
    kernel.endpoint.succeeded += 1
    await until(lambda: kernel.parked is None, "the parked process to end")


async def test_a_lost_worker_brings_the_notebook_back_with_its_last_saved_state(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await move_for_good(desk)
    process_of(endpoint).names["y"] = 2
    endpoint.run_cell("train()")
    endpoint.queue = ["a", "b"]
    await lost(desk)
    assert process_of(endpoint).names == {"x": 1}
    assert endpoint.failed == [
        "GpuLost: The GPU was lost: its worker ended or cannot be reached. This cell did not finish."
    ]
    assert endpoint.aborted == ["a", "b"]
    assert not endpoint.held
    cut, gone = kernel.notices.list()
    assert (cut.kind, gone.kind) == ("cut", "lost")
    assert "train()" in cut.message
    assert "later changes are gone" in gone.message
    assert gone.snapshot == "s1"


async def test_nothing_is_restored_before_the_fence_of_the_lost_worker_is_over(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    await move_for_good(desk)
    started = len(desk.here.started)
    began = asyncio.get_running_loop().time()
    desk.workers[-1].cut()
    await until(lambda: endpoint.held, "the hold")
    kernel = desk.session.kernel("k1")
    await until(lambda: kernel.status().move.message.startswith("The GPU was lost."), "the word")
    assert len(desk.here.started) == started
    assert desk.session.settling("k1")
    await until(lambda: len(desk.here.started) > started, "the new process")
    waited = asyncio.get_running_loop().time() - began
    assert waited > desk.session._parts.fence_seconds


async def test_the_loss_is_told_in_the_words_of_who_saw_the_worker_end(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await move_for_good(desk)
    desk.workers[-1].cut()
    await until(lambda: endpoint.held, "the hold")
    await desk.broker.change("lease1", message="The machine is being emptied for maintenance.")
    await desk.broker.end("lease1", EndReason.FAILED)
    await until(lambda: desk.session.kernel("k1").placement == "server", "the way back")
    await desk.settled()
    told = kernel.notices.list()[-1].message
    assert told.startswith("The GPU was lost. The machine is being emptied for maintenance. ")


async def test_the_fence_ends_early_when_the_broker_saw_the_worker_end(desk: Desk) -> None:
    desk.session._parts.fence_seconds = 1000
    _, endpoint = await desk.open(x=1)
    await move_for_good(desk)
    desk.workers[-1].cut()
    await until(lambda: endpoint.held, "the hold")
    await desk.broker.end("lease1", EndReason.FAILED)
    await until(lambda: desk.session.kernel("k1").placement == "server", "the way back")
    await desk.settled()


async def test_a_damaged_snapshot_gives_way_to_an_older_one(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await kernel.save("automatic")
    process_of(endpoint).names["x"] = 2
    await move_for_good(desk)
    bad = iter([AgentError("snapshot-unusable", "It is damaged.")])

    class Damaged(dict):  # the newest one fails to load, once
        def __contains__(self, op: object) -> bool:
            return op == "load" and not used

        def __getitem__(self, op: str) -> Exception:
            used.append(op)
            return next(bad)

    used: list[str] = []
    desk.faults.fail = Damaged()
    await lost(desk)
    assert process_of(endpoint).names == {"x": 1}


async def test_without_any_saved_state_it_starts_anew_and_says_so(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await move_for_good(desk)
    desk.disk.infos.clear()
    await lost(desk)
    assert process_of(endpoint).names == {}
    assert "starts anew" in kernel.notices.list()[-1].message


async def test_what_was_saved_before_a_restart_is_of_another_life(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await kernel.save("manual")
    await desk.session.launched(endpoint, kernel.command, "restart")
    process_of(endpoint).names.clear()
    desk.faults.fail["save"] = AgentError("storage-full", "No room.")
    await desk.session.launched(endpoint, kernel.command, "crash")
    assert process_of(endpoint).names == {}
    assert "No state had been saved" in kernel.notices.list()[-1].message


async def test_a_kernel_of_another_language_starts_anew_after_a_loss(desk: Desk) -> None:
    _, endpoint = await desk.open(language="R")
    await desk.flip("worker", consent=True)
    await lost(desk)
    assert process_of(endpoint).placement == "server"
    assert not desk.faults.calls


async def test_a_server_that_cannot_start_the_kernel_again_leaves_it_to_jupyter_and_says_so(
    desk: Desk,
) -> None:
    kernel, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    await kernel.end_parked()
    desk.faults.fail["prove"] = TimeoutError()
    desk.workers[-1].cut()
    await until(lambda: kernel.notices.list(), "the notice")
    assert "could not be started again" in kernel.notices.list()[-1].message
    assert not desk.session.settling("k1")
    assert process_of(endpoint).exited.result() == LINK_LOST
    assert not endpoint.held


async def test_a_move_that_runs_when_the_worker_is_lost_leaves_the_notebook_where_it_was(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    desk.faults.hang.add("load")
    await desk.session.ask("k1", "worker")
    await desk.faults.until("load")
    desk.workers[-1].cut()
    status = await desk.settled()
    assert (status.placement, status.move.step) == ("server", "failed")
    assert process_of(endpoint) is before


async def test_a_crash_on_the_server_is_answered_and_left_to_jupyters_restarter(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("boom()")
    endpoint.queue = ["next"]
    process_of(endpoint).end(-11)
    await until(lambda: endpoint.failed, "the answer")
    assert endpoint.failed == ["KernelDied: The notebook's kernel crashed in compiled code (SIGSEGV)."]
    await until(lambda: endpoint.aborted, "the others")
    assert not desk.session.settling("k1")
    await until(lambda: not kernel.recovering, "the end of it")


async def test_after_a_crash_the_new_process_gets_the_last_saved_state(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    await kernel.save("automatic")
    process_of(endpoint).names["x"] = 2
    process_of(endpoint).end(-9)
    await until(lambda: kernel.exit_status == -9, "the news")
    await until(lambda: not desk.session.settling("k1"), "the session to leave it to Jupyter")
    endpoint.running = await desk.session.place_for("k1").start_kernel(kernel.command)
    await desk.session.launched(endpoint, kernel.command, "crash")
    assert process_of(endpoint).names == {"x": 1}
    assert kernel.notices.list()[-1].kind == "restored"
    assert "killed by the system, most often because its memory was full" in kernel.notices.list()[-1].message


async def test_a_persons_shutdown_is_no_crash(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x")
    desk.session.stopping("k1")
    process_of(endpoint).end(0)
    await asyncio.sleep(0.05)
    assert not endpoint.failed
    assert not kernel.recovering
    await desk.session.closed("k1")
    assert not desk.session.kernels
    await desk.session.closed("k1")


@pytest.mark.parametrize("succeeded", [False, True])
async def test_the_parked_process_takes_over_only_before_the_first_cell_is_done(
    desk: Desk, succeeded: bool
) -> None:
    _, endpoint = await desk.open(x=1)
    old = process_of(endpoint)
    await desk.flip("worker")
    await until(lambda: old.stopped, "the parking")
    if succeeded:
        endpoint.run_cell("1")
        endpoint.end_cell()
        await until(old.exited.done, "the parked process to go")
    process_of(endpoint).end(-9)
    await until(lambda: endpoint.failed or not old.stopped or succeeded, "what follows")
    await desk.settled()
    assert (process_of(endpoint) is old) is not succeeded


async def test_a_restart_on_the_worker_stays_there_and_one_without_a_link_comes_home(desk: Desk) -> None:
    await desk.open(x=1)
    assert desk.session.place_for("k1").placement == "server"
    await desk.flip("worker")
    assert desk.session.place_for("k1").placement == "worker"
    assert desk.session.place_for("another").placement == "server"
