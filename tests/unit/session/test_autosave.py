"""Notebooks are saved by themselves: when, how, and what it never does to the person's cells."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gpulease.session import SnapshotInfo
from gpusession import autosave
from tests.unit.session.conftest import Desk, process_of, until


def set_rules(desk: Desk, *, every: int = 300, work: int = 10) -> None:
    changes = {"automatic_save_seconds": every, "automatic_save_work_seconds": work}
    desk.broker.policy = desk.broker.policy.model_copy(update=changes)
    desk.session.keeper.policy = desk.broker.policy


def automatic(desk: Desk) -> Sequence[SnapshotInfo]:
    return [one for one in desk.disk.list() if one.reason == "automatic"]


def operations(desk: Desk) -> list[str]:
    return [op for _, op in desk.faults.calls]


async def some_looks() -> None:
    await asyncio.sleep(0.5)


async def test_a_notebook_is_saved_after_cells_that_worked_for_long(desk: Desk) -> None:
    set_rules(desk, work=1)
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("train()")
    await asyncio.sleep(1.2)
    assert not automatic(desk)
    endpoint.end_cell()
    await until(lambda: automatic(desk), "the automatic save")
    await until(lambda: not kernel.unsaved, "the note")
    assert kernel.status().saved_at is not None
    await some_looks()
    assert len(automatic(desk)) == 1, "nothing has changed since"


async def test_short_cells_are_saved_after_the_interval(desk: Desk) -> None:
    set_rules(desk, every=1)
    _, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await some_looks()
    assert not automatic(desk)
    await until(lambda: automatic(desk), "the automatic save")


async def test_a_notebook_where_nothing_ran_is_not_saved(desk: Desk) -> None:
    set_rules(desk, every=1)
    await desk.open(x=1)
    await asyncio.sleep(1.5)
    assert not operations(desk)


async def test_an_interval_of_zero_switches_it_off(desk: Desk) -> None:
    set_rules(desk, every=0, work=1)
    _, endpoint = await desk.open(x=1)
    endpoint.run_cell("train()")
    await asyncio.sleep(1.2)
    endpoint.end_cell()
    await some_looks()
    assert not operations(desk)


async def test_another_language_is_left_alone(desk: Desk) -> None:
    set_rules(desk, every=1)
    _, endpoint = await desk.open(language="R")
    endpoint.run_cell("x <- 1")
    endpoint.end_cell()
    await asyncio.sleep(1.3)
    assert not operations(desk)


async def test_the_newest_two_automatic_states_stay_beside_those_of_other_reasons(desk: Desk) -> None:
    set_rules(desk, every=1)
    kernel, endpoint = await desk.open(x=1)
    manual = await desk.session.states.save("k1")
    for number in range(4):
        process_of(endpoint).names["x"] = number
        endpoint.run_cell("x += 1")
        endpoint.end_cell()
        await until(lambda: not kernel.unsaved, "the automatic save")
    await until(lambda: len(automatic(desk)) == autosave.KEPT, "the older ones to go")
    assert [desk.disk.names[one.id] for one in automatic(desk)] == [{"x": 3}, {"x": 2}]
    assert manual.id in desk.disk.infos


async def test_a_failure_is_shown_and_not_tried_again_at_once(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.copy_fails = {"status": "error", "code": "storage-full", "message": "There is no room left."}
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await until(lambda: kernel.status().save_problem, "the word")
    assert kernel.status().save_problem == "There is no room left."
    await some_looks()
    assert operations(desk).count("automatic") == 1
    desk.faults.copy_fails = None
    await desk.session.states.save("k1")
    assert kernel.status().save_problem is None


async def test_a_kernel_whose_copy_failed_is_saved_between_its_cells(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.copy_fails = {"status": "error", "code": "unavailable", "message": "It hung."}
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await until(lambda: not kernel.unsaved, "the save between cells")
    assert operations(desk).count("save") == 1
    assert kernel.status().save_problem is None


async def test_on_a_gpu_the_kernel_itself_saves_while_nobody_waits(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.forks = False
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await until(lambda: automatic(desk), "the automatic save")
    await until(lambda: not kernel.unsaved, "the note")


async def test_on_a_gpu_a_cell_that_waits_calls_a_long_save_off(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.forks = False
    desk.faults.hang.add("save")
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await desk.faults.until("save")
    endpoint.waiting = 1
    tally = desk.session._autosave._tallies["k1"]
    await until(lambda: not tally.saving, "the save to be called off", autosave.BOUND_SECONDS + 1)
    assert kernel.unsaved
    assert kernel.status().save_problem is None
    assert not automatic(desk)


async def test_on_a_gpu_no_save_begins_in_a_row_of_cells_before_its_time_is_known(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.forks = False
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    endpoint.waiting = 3
    await desk.faults.until("automatic")
    await some_looks()
    assert "save" not in operations(desk)
    endpoint.waiting = 0
    await until(lambda: not kernel.unsaved, "the automatic save")


async def test_a_kernel_that_dies_in_its_save_leaves_nothing_half_written(desk: Desk) -> None:
    set_rules(desk, every=1)
    desk.faults.hang.add("background")
    _, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await desk.faults.until("background")
    half = desk.disk.folder / ".copy.new"
    half.mkdir()
    process_of(endpoint).end(-9)
    await until(lambda: not half.exists(), "the sweeping")


async def test_a_restored_notebook_counts_as_unsaved(desk: Desk) -> None:
    kernel, _ = await desk.open(x=1)
    saved = await desk.session.states.save("k1")
    assert not kernel.unsaved
    await desk.session.states.restore("k1", saved.id, None)
    assert kernel.unsaved


async def test_a_move_saves_too(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    assert kernel.unsaved
    endpoint.succeeded = 0
    await desk.flip("worker")
    assert not kernel.unsaved


async def test_a_crash_says_how_old_the_restored_state_is(desk: Desk) -> None:
    set_rules(desk, every=1)
    kernel, endpoint = await desk.open(x=1)
    endpoint.run_cell("x = 1")
    endpoint.end_cell()
    await until(lambda: not kernel.unsaved, "the automatic save")
    process = process_of(endpoint)
    endpoint.running = await desk.here.start_kernel(kernel.command)
    process.end(-9)
    await desk.session.launched(endpoint, kernel.command, "crash")
    (notice,) = kernel.notices.list()
    assert notice.kind == "restored"
    assert "the state of less than a minute ago" in notice.message
    assert process_of(endpoint).names == {"x": 1}


def test_a_server_without_a_broker_saves_by_the_defaults() -> None:
    assert autosave.rules_of(None) == autosave.Rules(300, 10)
