"""A lease ends while a program runs: the person is told, and the program has until the deadline."""

from __future__ import annotations

import asyncio

import pytest

from gpulease.states import EndReason
from tests.service.session.desk import Desk, eventually, server_with_broker


async def test_a_program_is_told_of_the_end_and_hung_up_before_the_deadline() -> None:
    async with server_with_broker(ending_seconds=12) as desk:
        script = "trap 'echo bye; exit 3' HUP; echo ready; while true; do sleep 0.1; done"
        typed = await desk.gpu_begins("run", "sh", "-c", script)
        await typed.says(b"ready")
        (lease,) = desk.broker.leases
        began = asyncio.get_running_loop().time()
        await desk.broker.end(lease, EndReason.REVOKED)
        ran = await typed.end()
        assert ran.code == 3
        assert b"bye" in ran.out
        assert "an operator took the GPU back" in ran.err
        assert 2 < asyncio.get_running_loop().time() - began < 11
        await eventually(lambda: desk.broker.leases[lease].state == "ended", "the end")
        assert desk.broker.acknowledged[lease].kernels == []


async def test_a_program_that_ends_by_itself_frees_the_gpu_at_once(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; sleep 2; exit 9")
    await typed.says(b"ready")
    (lease,) = desk.broker.leases
    await desk.broker.end(lease, EndReason.REVOKED)
    assert (await typed.end()).code == 9
    await eventually(lambda: desk.broker.leases[lease].state == "ended", "the end", 5)


async def test_a_warning_reaches_the_terminal_with_the_way_to_keep(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; read line")
    await typed.says(b"ready")
    (lease,) = desk.broker.leases
    await desk.broker.warn(lease)

    async def warned() -> bool:
        return (await desk.api("GET", "status"))["lease"]["warning"] is not None

    await eventually(warned, "the warning")
    kept = await desk.gpu("keep")
    assert (kept.code, kept.text) == (0, "Kept for 30 min. Once more is possible.\n")
    assert desk.broker.leases[lease].warning is None
    typed.process.stdin.write(b"\n")  # type: ignore[union-attr]
    ran = await typed.end()
    assert ran.code == 0
    assert "idle for 10 min" in ran.err
    assert "gpu keep" in ran.err


async def test_the_broker_hears_that_a_program_is_at_work(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; cat")
    await typed.says(b"ready")
    (lease,) = desk.broker.leases
    await eventually(lambda: desk.broker.running_cells.get(lease), "the hint", 15)
    assert (await typed.end()).code == 0


async def test_notebook_and_program_share_one_lease_and_the_last_one_gives_it_back(desk: Desk) -> None:
    notebook = await desk.open()
    await notebook.run("x = 41")
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; cat")
    await typed.says(b"ready")
    await notebook.flip("worker")
    assert await notebook.run("print(x + 1)") == "42\n"
    assert (await typed.end()).code == 0
    await asyncio.sleep(0.5)
    assert await desk.lease_state() == "active"
    await notebook.flip("server")

    async def released() -> bool:
        return await desk.lease_state() is None

    await eventually(released, "the release")
    assert len(desk.broker.leases) == 1
    assert await notebook.run("print(x + 1)") == "42\n"


@pytest.mark.parametrize("words", [("off",), ("off", "--json")])
async def test_off_moves_notebooks_back_and_says_so(desk: Desk, words: tuple[str, ...]) -> None:
    notebook = await desk.open("train.ipynb")
    await notebook.run("x = list(range(1000))")
    on = await desk.gpu("on", "train.ipynb")
    assert (on.code, on.text) == (0, "train.ipynb runs on the GPU.\n"), on.err
    assert "train.ipynb" in (await desk.gpu()).text
    off = await desk.gpu(*words)
    assert off.code == 0, off.err
    if len(words) == 1:
        assert "train.ipynb: moved back" in off.text
        assert off.text.endswith("Released.\n")
    else:
        assert off.data["moved"][0]["notebook"] == "train.ipynb"
    assert await desk.lease_state() is None
    assert await notebook.run("print(len(x))") == "1000\n"
