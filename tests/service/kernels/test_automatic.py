"""Real kernels are saved by themselves, and a crash costs the work since then and no more."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from jupyter_client.ioloop.manager import AsyncIOLoopKernelManager

from gpulease.session import SnapshotInfo
from tests.service.kernels.conftest import Server, alive, until
from tests.service.kernels.reader import Reader

SLOW_TO_SAVE = """
import time
class Slow:
    def __getstate__(self):
        time.sleep(3); return {"n": 1}
slow = Slow()
"""


async def open_with_restarts(
    server: Server, placement: str = "server"
) -> tuple[AsyncIOLoopKernelManager, Reader]:
    """Open a kernel that Jupyter starts again when it dies, with a short interval for saving."""
    changes = {"automatic_save_seconds": 1, "automatic_save_work_seconds": 1}
    server.broker.policy = server.broker.policy.model_copy(update=changes)
    server.session.keeper.policy = server.broker.policy
    manager = AsyncIOLoopKernelManager(connection_file=str(server.folder / "c.json"))
    server.managers.append(manager)
    await manager.start_kernel(cwd=str(server.folder))
    reader = await server.reader(manager)
    if placement == "worker":
        await server.flip(manager, "worker")
    return manager, reader


async def saved(server: Server, manager: AsyncIOLoopKernelManager) -> None:
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: not kernel.unsaved, "the automatic save")


def automatic(server: Server) -> Sequence[SnapshotInfo]:
    return [one for one in server.store.list() if one.reason == "automatic"]


def half_written(server: Server) -> Sequence[Path]:
    return list(server.store.folder.glob(".*.new"))


@pytest.mark.parametrize("placement", ["server", "worker"])
@pytest.mark.parametrize("death", ["os._exit(9)", "os.kill(os.getpid(), 9)"])
async def test_a_crash_costs_only_the_work_since_the_automatic_save(
    server: Server, placement: str, death: str
) -> None:
    manager, reader = await open_with_restarts(server, placement)
    await reader.run("import os, numpy as np\nx = [1]; y = x; big = np.arange(3_000_000)")
    await saved(server, manager)
    dying = reader.send(f"x.append(2); {death}")
    await reader.finish(dying, 20)
    assert dying.errors == ["KernelDied"]
    assert await reader.value("x, x is y, int(big.sum())") == ([1], True, 4499998500000)
    status = await server.status(manager)
    assert status.placement == placement
    (notice,) = [one for one in status.notices if one.kind == "restored"]
    assert "the state of less than a minute ago" in notice.message
    assert automatic(server)[0].id == notice.snapshot


async def test_a_copy_of_the_kernel_saves_while_cells_go_on_in_their_order(server: Server) -> None:
    manager, reader = await open_with_restarts(server)
    await reader.run(f"{SLOW_TO_SAVE}\nseen = []")
    kernel = server.session.kernels[manager.kernel_id]
    process = psutil.Process(kernel.endpoint.running.pid)
    await until(lambda: process.children(), "the copy")
    cells = [reader.send(f"seen.append({number})") for number in range(100)]
    for cell in cells:
        await reader.finish(cell)
    assert process.children(), "the cells waited for the copy"
    assert await reader.value("seen == list(range(100))")
    await until(lambda: automatic(server), "the automatic save")
    await server.call(server.session.states.restore(manager.kernel_id, automatic(server)[-1].id, ["seen"]))
    assert await reader.value("seen") == []


async def test_a_kernel_killed_in_its_save_comes_back_with_the_one_before(server: Server) -> None:
    manager, reader = await open_with_restarts(server)
    await reader.run("import os; x = 1")
    await saved(server, manager)
    await reader.run(f"{SLOW_TO_SAVE}\nx = 2")
    kernel = server.session.kernels[manager.kernel_id]
    running = kernel.endpoint.running
    await until(lambda: psutil.Process(running.pid).children(), "the copy")
    (copy,) = psutil.Process(running.pid).children()
    os.kill(running.pid, signal.SIGKILL)
    await until(lambda: kernel.endpoint.running is not running, "the restart")
    assert await reader.value("x") == 1
    assert not alive(copy.pid)
    await until(lambda: not half_written(server), "the sweeping")
    assert all(one.complete for one in server.store.list())


async def test_a_full_disk_is_said_and_loses_no_older_state(server: Server) -> None:
    manager, reader = await open_with_restarts(server)
    await reader.run("import os, resource, numpy as np; x = 1")
    await saved(server, manager)
    (before,) = automatic(server)
    # No file may become larger: to the one who writes, the disk is full.
    await reader.run("resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))")
    await reader.run("big = np.ones(2_000_000)")
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: kernel.save_problem, "the word")
    assert (await server.status(manager)).save_problem == "There is no room left to save the variables."
    assert before.id in [one.id for one in automatic(server)]
    assert not half_written(server)
    assert await reader.value("float(big.sum())") == 2_000_000
    await reader.finish(reader.send("os._exit(1)"), 20)
    assert await reader.value("x") == 1


async def test_a_restart_by_the_person_ends_the_copy_and_restores_nothing(server: Server) -> None:
    manager, reader = await open_with_restarts(server)
    await reader.run("x = 1")
    await saved(server, manager)
    await reader.run(SLOW_TO_SAVE)
    process = psutil.Process(server.session.kernels[manager.kernel_id].endpoint.running.pid)
    await until(lambda: process.children(), "the copy")
    (copy,) = process.children()
    await manager.restart_kernel()
    assert not await reader.value("'x' in globals()")
    assert not alive(copy.pid)
    await until(lambda: not half_written(server), "the sweeping")


async def test_a_kernel_that_may_not_be_copied_is_saved_between_its_cells(server: Server) -> None:
    manager, reader = await open_with_restarts(server)
    await reader.run("import sys, types; sys.modules['jax'] = types.ModuleType('jax'); x = 5")
    await saved(server, manager)
    assert automatic(server)[0].kept >= 1
    await reader.run(f"{SLOW_TO_SAVE}\nx = 6")
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: kernel.endpoint._board.queue.main is not None, "the save between cells")
    # It takes three seconds; whoever sends a cell need not wait for that.
    assert await reader.value("x") == 6
    assert not half_written(server)
    assert kernel.unsaved
    assert kernel.save_problem is None
