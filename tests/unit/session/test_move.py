"""A kernel's move: what it carries, what stops it, and that nothing is lost when it fails."""

from __future__ import annotations

import asyncio
import signal

import pytest

from gpulease import errors
from gpusession.kernels.move import size_text
from gpusession.kernels.ports import AgentError
from tests.unit.session.conftest import Desk, process_of, until


async def test_a_flip_carries_the_variables_to_the_worker_and_back(desk: Desk) -> None:
    _, endpoint = await desk.open(x=[1, 2], y="text")
    status = await desk.flip("worker")
    assert (status.placement, status.move.step) == ("worker", "done")
    assert process_of(endpoint).names == {"x": [1, 2], "y": "text"}
    assert [(one.name, one.verdict) for one in status.last_verdict] == [("x", "kept"), ("y", "kept")]
    process_of(endpoint).names["z"] = 3
    status = await desk.flip("server")
    assert status.placement == "server"
    assert process_of(endpoint).names == {"x": [1, 2], "y": "text", "z": 3}
    assert not endpoint.held


async def test_what_would_stay_behind_stops_a_move_until_somebody_consents(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1, log="FILE")
    before = process_of(endpoint)
    status = await desk.flip("worker")
    assert (status.placement, status.move.step) == ("server", "refused")
    assert status.move.error == "left-needs-consent"
    assert [(one.name, one.verdict) for one in status.move.verdicts] == [("x", "kept"), ("log", "left")]
    assert process_of(endpoint) is before
    assert not endpoint.held
    status = await desk.flip("worker", consent=True)
    assert status.placement == "worker"
    assert process_of(endpoint).names == {"x": 1}
    assert kernel.last_verdict[1].verdict == "left"


async def test_a_variable_that_turns_unsaveable_after_the_check_stops_the_move(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    desk.faults.then["save"] = lambda: process_of(endpoint).names.update(log="FILE")
    status = await desk.flip("worker")
    assert (status.placement, status.move.step) == ("server", "refused")


@pytest.mark.parametrize(
    ("op", "error", "code"),
    [
        ("check", AgentError("internal", "The check broke"), "internal"),
        ("save", AgentError("storage-full", "No room is left in your home folder."), "storage-full"),
        ("load", AgentError("snapshot-unusable", "It is damaged."), "snapshot-unusable"),
        ("prove", TimeoutError(), "unavailable"),
        ("drain", errors.Unavailable("The relay failed."), "unavailable"),
        ("load", ValueError("a bug"), "internal"),
    ],
)
async def test_a_failure_before_the_switch_leaves_the_old_kernel_as_it_was(
    desk: Desk, op: str, error: Exception, code: str
) -> None:
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    desk.faults.fail[op] = error
    status = await desk.flip("worker")
    assert (status.placement, status.move.step, status.move.error) == ("server", "failed", code)
    assert "nothing was lost" in status.move.message
    assert process_of(endpoint) is before
    assert not before.exited.done()
    assert not before.stopped
    assert not endpoint.held
    assert all(process.exited.done() for process in desk.workers[0].place.started)
    assert "a bug" not in status.move.message


@pytest.mark.parametrize(
    ("op", "error", "hint"),
    [
        ("save", AgentError("storage-full", "No room.", hint="Delete old saved states."), "Delete old"),
        ("drain", errors.LimitReached("You use 1 of 1 GPUs.", hint="Release the other."), "Release the"),
        ("check", AgentError("internal", "It broke."), None),
    ],
)
async def test_a_move_that_failed_says_what_may_be_done(
    desk: Desk, op: str, error: Exception, hint: str | None
) -> None:
    await desk.open(x=1)
    desk.faults.fail[op] = error
    said = (await desk.flip("worker")).move.hint
    assert said is None if hint is None else said.startswith(hint)


@pytest.mark.parametrize("op", ["prove", "modules", "check", "drain", "save", "load"])
async def test_a_move_can_be_cancelled_at_each_step_before_the_switch(desk: Desk, op: str) -> None:
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    desk.faults.hang.add(op)
    await desk.session.ask("k1", "worker")
    await desk.faults.until(op)
    await desk.session.cancel("k1")
    status = await desk.settled()
    assert (status.placement, status.move.step) == ("server", "cancelled")
    assert process_of(endpoint) is before
    assert not endpoint.held
    assert all(process.exited.done() for process in desk.workers[0].place.started)


@pytest.mark.parametrize("op", ["prove", "modules", "check", "drain", "save", "load"])
async def test_a_new_kernel_that_dies_at_any_step_changes_nothing(desk: Desk, op: str) -> None:
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    desk.faults.then[op] = lambda: desk.workers[0].place.started[-1].end(-9)
    desk.faults.hang.add(op)
    status = await desk.flip("worker")
    assert (status.placement, status.move.step) == ("server", "failed")
    assert process_of(endpoint) is before
    assert not endpoint.held


async def test_an_old_kernel_that_dies_after_the_save_is_not_missed(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    before = process_of(endpoint)
    desk.faults.then["load"] = lambda: before.end(-9)
    status = await desk.flip("worker")
    assert status.placement == "worker"
    assert process_of(endpoint).names == {"x": 1}


async def test_the_move_waits_for_the_running_cell_and_says_so(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("train()")
    await desk.session.ask("k1", "worker")
    await until(lambda: kernel.status().move.step == "holding", "the hold")
    assert kernel.status().move.message == "Waiting for the running cell."
    endpoint.waits_for_input = True
    await until(lambda: "your answer" in kernel.status().move.message, "the word about input")
    endpoint.end_cell()
    assert (await desk.settled()).placement == "worker"


async def test_another_language_moves_as_a_fresh_start_and_only_with_consent(desk: Desk) -> None:
    await desk.open(language="R")
    status = await desk.flip("worker")
    assert (status.move.step, status.placement) == ("refused", "server")
    assert status.move.verdicts[0].verdict == "left"
    status = await desk.flip("worker", consent=True)
    assert status.placement == "worker"
    assert [op for _, op in desk.faults.calls] == []


async def test_the_old_process_is_parked_until_the_first_cell_has_succeeded(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    old = process_of(endpoint)
    await desk.flip("worker")
    await until(lambda: old.stopped, "the old process to be stopped")
    assert not old.exited.done()
    endpoint.run_cell("1")
    endpoint.end_cell()
    await until(old.exited.done, "the old process to end")


async def test_a_new_process_that_dies_before_its_first_cell_gives_way_to_the_parked_one(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    old = process_of(endpoint)
    await desk.flip("worker")
    await until(lambda: old.stopped, "the old process to be stopped")
    endpoint.run_cell("boom()")
    process_of(endpoint).end(-11)
    await until(lambda: process_of(endpoint) is old, "the parked process to take over")
    status = await desk.settled()
    assert status.placement == "server"
    assert signal.SIGCONT in old.signals
    assert endpoint.failed
    assert [notice.kind for notice in kernel.notices.list()] == ["restored"]


async def test_sizes_read_as_people_read_them() -> None:
    assert [size_text(n) for n in (512, 2_340_000, 840_000_000, 12_400_000_000)] == [
        "1 kB",
        "2.3 MB",
        "0.8 GB",
        "12.4 GB",
    ]


async def test_ten_quick_flips_end_where_the_last_one_said(desk: Desk) -> None:
    for last in ("worker", "server"):
        _, endpoint = await desk.open(f"k-{last}", x=1)
        for n in range(10):
            target = "worker" if (n % 2 == 0) == (last == "server") else "server"
            status = await desk.session.ask(f"k-{last}", target)
            assert status.move is not None or target == "server"
            await asyncio.sleep(0.002 * (n % 4))
        status = await desk.settled(f"k-{last}")
        assert status.placement == last
        assert process_of(endpoint).names == {"x": 1}
        assert not endpoint.held
        alive = [p for w in desk.workers for p in w.place.started if not p.exited.done() and not p.stopped]
        assert len(alive) == (1 if last == "worker" else 0) or last == "server"


async def test_two_tabs_that_flip_at_once_make_one_move(desk: Desk) -> None:
    await desk.open(x=1)
    first = await desk.session.ask("k1", "worker")
    second = await desk.session.ask("k1", "worker")
    assert first.move.id == second.move.id
    status = await desk.settled()
    assert status.placement == "worker"
    assert len(desk.workers[0].place.started) == 1


async def test_consent_given_while_it_moves_counts(desk: Desk) -> None:
    await desk.open(x=1, log="FILE")
    desk.faults.hang.add("prove")
    await desk.session.ask("k1", "worker")
    await desk.session.ask("k1", "worker", consent=True)
    desk.faults.resume()
    assert (await desk.settled()).placement == "worker"


async def test_the_broker_hears_that_a_cell_runs_on_the_gpu_and_when_it_is_over(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    endpoint.run_cell("1")
    endpoint.end_cell()
    await desk.flip("worker")
    assert desk.broker.cells == []
    endpoint.run_cell("while True: pass")
    await until(lambda: desk.broker.cells, "the hint")
    endpoint.end_cell()
    await until(lambda: not desk.broker.cells[-1][1], "the end of the cell")
    told = len(desk.broker.cells)
    await asyncio.sleep(0.2)
    assert len(desk.broker.cells) == told


async def test_cells_in_a_row_are_one_word_to_the_broker_and_short_ones_are_none(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    endpoint.run_cell("1")
    endpoint.end_cell()
    await asyncio.sleep(0.2)
    assert desk.broker.cells == []
    endpoint.run_cell("while True: pass")
    await until(lambda: desk.broker.cells, "the hint")
    endpoint.end_cell()
    endpoint.run_cell("while True: pass")
    await asyncio.sleep(0.2)
    assert all(running for _, running in desk.broker.cells)
    endpoint.end_cell()
    await until(lambda: not desk.broker.cells[-1][1], "the end of the cells")


async def test_a_cell_that_waits_for_an_answer_does_not_keep_the_gpu(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    await desk.flip("worker")
    endpoint.run_cell("input()")
    await until(lambda: desk.broker.cells, "the hint")
    endpoint.waits_for_input = True
    endpoint.on_work()
    await until(lambda: not desk.broker.cells[-1][1], "the word that nothing works")


async def test_the_gpu_waits_a_moment_for_the_answer_to_what_may_stay_behind(desk: Desk) -> None:
    await desk.open(x=1, f="FILE")
    status = await desk.flip("worker")
    assert status.move.step == "refused"
    held = desk.session.lease_id()
    assert held is not None
    assert (await desk.flip("worker", consent=True)).placement == "worker"
    assert desk.session.lease_id() == held


async def test_without_an_answer_the_gpu_goes_back(desk: Desk) -> None:
    await desk.open(x=1, f="FILE")
    await desk.flip("worker")
    await until(lambda: desk.session.lease_id() is None, "the lease to go back")
