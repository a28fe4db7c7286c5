"""A kernel between moves: what is shown, saved, restored, offered and told."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from gpulease import errors
from gpusession.kernels.ports import AgentError
from tests.unit.session.conftest import Desk, process_of, until
from tests.unit.session.fakes import Snapshots, now


async def test_the_status_shows_what_is(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    status = await desk.session.kernel_status("k1")
    assert (status.placement, status.movable, status.busy, status.lease) == ("server", "state", False, None)
    assert status.notebook == "k1.ipynb"
    endpoint.run_cell("1")
    assert (await desk.session.kernel_status("k1")).busy
    endpoint.end_cell()
    await desk.flip("worker")
    status = await desk.session.kernel_status("k1")
    assert (status.placement, status.lease) == ("worker", "lease1")


async def test_a_kernel_without_our_agent_is_movable_as_a_fresh_start(desk: Desk) -> None:
    kernel, _ = await desk.open(x=1)
    kernel.command = type(kernel.command)(**{**vars(kernel.command), "agent": False})
    assert kernel.status().movable == "fresh"
    with pytest.raises(errors.Conflict):
        await kernel.save("manual")


async def test_a_renamed_notebook_is_known_by_its_new_name(desk: Desk) -> None:
    await desk.open(x=1)
    desk.notebooks["k1"] = "renamed.ipynb"
    saved = await desk.session.states.save("k1")
    assert saved.notebook == "renamed.ipynb"
    del desk.notebooks["k1"]
    assert (await desk.session.kernel_status("k1")).notebook == "renamed.ipynb"


async def test_saving_and_restoring_by_hand(desk: Desk) -> None:
    kernel, endpoint = await desk.open(x=1)
    saved = await desk.session.states.save("k1")
    assert saved.reason == "manual"
    process_of(endpoint).names["x"] = 2
    result = await desk.session.states.restore("k1", saved.id, None)
    assert process_of(endpoint).names == {"x": 1}
    assert [(one.name, one.verdict) for one in result.verdicts] == [("x", "kept")]
    assert kernel.last_verdict == result.verdicts


async def test_a_save_without_consent_refuses_to_leave_anything(desk: Desk) -> None:
    await desk.open(x=1, log="FILE")
    with pytest.raises(errors.LeftNeedsConsent) as refused:
        await desk.session.states.save("k1", consent=False)
    assert [one["name"] for one in refused.value.details["verdicts"]] == ["x", "log"]
    assert not desk.disk.infos
    assert (await desk.session.states.save("k1", consent=True)).left == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AgentError("storage-full", "No room."), errors.StorageFull),
        (AgentError("snapshot-unusable", "Damaged."), errors.SnapshotUnusable),
        (TimeoutError(), errors.Unavailable),
    ],
)
async def test_what_the_agent_refuses_reaches_the_person_as_it_is(
    desk: Desk, error: Exception, expected: type[errors.GpuhubError]
) -> None:
    await desk.open(x=1)
    desk.faults.fail["save"] = error
    with pytest.raises(expected):
        await desk.session.states.save("k1")


async def test_the_hint_of_what_the_agent_refuses_comes_along(desk: Desk) -> None:
    await desk.open(x=1)
    desk.faults.fail["save"] = AgentError("storage-full", "No room.", hint="Delete old saved states.")
    with pytest.raises(errors.StorageFull) as refused:
        await desk.session.states.save("k1")
    assert refused.value.hint == "Delete old saved states."
    desk.faults.fail["save"] = AgentError("storage-full", "No room.")
    with pytest.raises(errors.StorageFull) as refused:
        await desk.session.states.save("k1")
    assert refused.value.hint == errors.StorageFull("").hint


async def test_a_kernel_that_dies_during_a_save_is_said_to_have_ended(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    desk.faults.hang.add("save")
    saving = asyncio.create_task(desk.session.states.save("k1"))
    await desk.faults.until("save")
    desk.session.stopping("k1")
    process_of(endpoint).end(-9)
    with pytest.raises(errors.Unavailable, match="ended meanwhile"):
        await saving


async def test_while_it_moves_nothing_else_happens_to_it(desk: Desk) -> None:
    await desk.open(x=1)
    saved = await desk.session.states.save("k1")
    desk.faults.hang.add("check")
    await desk.session.ask("k1", "worker")
    await desk.faults.until("check")
    with pytest.raises(errors.MoveInProgress):
        await desk.session.states.save("k1")
    with pytest.raises(errors.MoveInProgress):
        await desk.session.states.restore("k1", saved.id, None)
    assert desk.session.settling("k1")
    desk.faults.resume()
    await desk.settled()


async def test_what_is_not_there_is_said_so(desk: Desk) -> None:
    with pytest.raises(errors.NotFound):
        await desk.session.kernel_status("nope")
    with pytest.raises(errors.NotFound):
        await desk.session.ask("nope", "worker")
    await desk.open(x=1)
    with pytest.raises(errors.NotFound):
        await desk.session.cancel("k1")
    with pytest.raises(errors.NotFound):
        await desk.session.states.restore("k1", "nope", None)
    with pytest.raises(errors.NotFound):
        await desk.session.dismiss("k1", "nope")
    with pytest.raises(errors.NotFound):
        await desk.session.states.delete("nope")


async def test_a_damaged_snapshot_is_not_loaded(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    saved = await desk.session.states.save("k1")
    desk.disk.infos[saved.id] = saved.model_copy(update={"complete": False, "problem": "A file is missing."})
    with pytest.raises(errors.SnapshotUnusable, match="A file is missing"):
        await desk.session.states.restore("k1", saved.id, None)
    assert process_of(endpoint).names == {"x": 1}


# --- offers


def left_behind(disk: Snapshots, notebook: str = "k1.ipynb", age_seconds: float = 60.0) -> str:
    """A state that an earlier kernel of the notebook saved before its server went away."""
    meta = {"kernel": "old", "notebook": notebook, "reason": "server-stop"}
    snapshot = disk.add({"x": 7}, meta, [])
    when = now() - timedelta(seconds=age_seconds)
    disk.infos[snapshot] = disk.infos[snapshot].model_copy(update={"created_at": when})
    return snapshot


async def offered(desk: Desk, kernel_id: str = "k1") -> str | None:
    kernel = desk.session.kernel(kernel_id)
    try:
        await until(lambda: kernel.notices.list(), "an offer", 0.5)
    except AssertionError:
        return None
    return kernel.notices.list()[-1].snapshot


async def test_a_fresh_kernel_offers_what_the_notebook_last_saved(desk: Desk) -> None:
    left_behind(desk.disk, age_seconds=120)
    newest = left_behind(desk.disk)
    left_behind(desk.disk, "other.ipynb", age_seconds=1)
    _, endpoint = await desk.open()
    assert await offered(desk) == newest
    await desk.session.states.restore("k1", newest, None)
    assert process_of(endpoint).names == {"x": 7}
    assert not desk.session.kernel("k1").notices.list()


@pytest.mark.parametrize("how", ["dismissed", "restored", "shut down"])
async def test_a_settled_state_is_not_offered_again(desk: Desk, how: str) -> None:
    snapshot = left_behind(desk.disk)
    await desk.open()
    assert await offered(desk) == snapshot
    if how == "dismissed":
        await desk.session.dismiss("k1", desk.session.kernel("k1").notices.list()[0].id)
    elif how == "restored":
        await desk.session.states.restore("k1", snapshot, None)
    else:
        await desk.session.states.save("k1")
        await desk.session.closed("k1")
    if how != "shut down":
        await desk.session.closed("k1")
    desk.notebooks["k2"] = "k1.ipynb"
    await desk.open("k2")
    assert await offered(desk, "k2") is None
    assert json.loads((desk.disk.folder / ".settled.json").read_text())


async def test_what_a_living_kernel_saved_is_not_offered_to_another(desk: Desk) -> None:
    await desk.open("k1", x=1)
    await desk.session.states.save("k1")
    desk.notebooks["k2"] = "k1.ipynb"
    await desk.open("k2")
    assert await offered(desk, "k2") is None


async def test_another_language_is_offered_nothing(desk: Desk) -> None:
    left_behind(desk.disk)
    await desk.open(language="R")
    assert await offered(desk) is None


# --- news


async def test_followers_hear_of_each_change_and_the_last_word_is_true(desk: Desk) -> None:
    heard: list[tuple[str, str, str]] = []
    leave = desk.session.subscribe(lambda kind, key, data: heard.append((kind, key, data)))
    await desk.open(x=1)
    await desk.flip("worker")
    await asyncio.sleep(0.2)
    last = next(data for kind, key, data in reversed(heard) if (kind, key) == ("kernel", "k1"))
    assert json.loads(last)["placement"] == "worker"
    assert json.loads(last)["move"]["step"] == "done"
    assert [kind for kind, _, _ in heard].count("status") < 40
    leave()
    count = len(heard)
    await desk.flip("server")
    await asyncio.sleep(0.2)
    assert len(heard) == count


async def test_followers_hear_when_a_kernel_begins_and_ends_to_run_something(desk: Desk) -> None:
    _, endpoint = await desk.open(x=1)
    heard: list[bool] = []

    def hear(kind: str, key: str, data: str) -> None:
        if (kind, key) == ("kernel", "k1"):
            heard.append(json.loads(data)["busy"])

    await asyncio.sleep(0.2)
    desk.session.subscribe(hear)
    endpoint.run_cell("while True: pass")
    await until(lambda: heard and heard[-1], "the news that it runs")
    endpoint.end_cell()
    await until(lambda: not heard[-1], "the news that it is over")


async def test_the_whole_status_adds_up(desk: Desk) -> None:
    await desk.open(x=1)
    await desk.session.states.save("k1")
    await desk.flip("worker")
    await asyncio.sleep(0.1)
    status = await desk.session.status()
    assert (status.user, status.broker, status.lease.id) == ("ann", "ok", "lease1")
    assert [one.id for one in status.kernels] == ["k1"]
    assert status.snapshots_bytes == sum(info.bytes for info in desk.disk.infos.values())
