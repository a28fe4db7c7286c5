"""Starting, restarting, crashing and ending kernels through Jupyter's own manager."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.ioloop import AsyncIOLoopKernelManager

from tests.service.kernels.conftest import Server, alive, until

GRANDCHILDREN = """
import subprocess, os
plain = subprocess.Popen(["sleep", "1000"])
away = subprocess.run(
    ["sh", "-c", "setsid nohup sleep 1000 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True
)
pids = [plain.pid, int(away.stdout)]
"""


async def test_a_restart_by_a_person_empties_the_kernel_and_keeps_its_address(server: Server) -> None:
    manager, reader = await server.open()
    file = connection_of(manager)
    await reader.run("x = 1")
    await server.call(server.session.kernels[manager.kernel_id].save("manual"))
    for place in ("server", "worker"):
        if place == "worker":
            await server.flip(manager, "worker")
            await reader.run("x = 2")
        before, kernel_id = await reader.value("__import__('os').getpid()"), manager.kernel_id
        await manager.restart_kernel()
        assert manager.kernel_id == kernel_id
        assert connection_of(manager) == file
        assert not await reader.value("'x' in globals()")
        assert await reader.value("__import__('os').getpid()") != before
        assert (await server.status(manager)).placement == place
        assert not alive(before)


async def test_a_restart_asks_nothing_of_what_was_running_or_waiting(server: Server) -> None:
    manager, reader = await server.open()
    running = reader.send("import time; time.sleep(100)")
    waiting = reader.send("x = 1")
    await until(lambda: server.relay(manager).in_flight, "the cell to run")
    await manager.restart_kernel()
    await reader.finish(waiting, 10)
    await reader.finish(running, 10)
    assert waiting.status == "aborted"
    assert running.status in ("aborted", "error")
    assert (await reader.run("1")).status == "ok"


@pytest.mark.parametrize("placement", ["server", "worker"])
async def test_a_crash_is_noticed_at_once_and_the_last_saved_state_comes_back(
    server: Server, placement: str
) -> None:
    manager = AsyncIOLoopKernelManager(connection_file=str(server.folder / "c.json"))
    server.managers.append(manager)
    await manager.start_kernel(cwd=str(server.folder))
    reader = await server.reader(manager)
    if placement == "worker":
        await server.flip(manager, "worker")
    await reader.run("x = [1]; y = x")
    await server.call(server.session.kernels[manager.kernel_id].save("automatic"))
    await reader.run("x.append(2)")
    restarts: list[float] = []
    manager.add_restart_callback(lambda: restarts.append(asyncio.get_running_loop().time()))
    loop = asyncio.get_running_loop()
    running = reader.send("import os, signal, time; time.sleep(0.1); os.kill(os.getpid(), signal.SIGSEGV)")
    waiting = reader.send("never = 1")
    began = loop.time()
    await reader.finish(running, 10)
    assert loop.time() - began < 2.5, "answered before Jupyter's restarter looked"
    assert running.errors == ["KernelDied"]
    assert (await reader.finish(waiting)).status == "aborted"
    assert await reader.value("x") == [1]
    assert await reader.value("x is y")
    assert len(restarts) == 1
    assert (await server.status(manager)).placement == placement
    notices = (await server.status(manager)).notices
    assert "restored" in [notice.kind for notice in notices]


async def test_a_kernel_that_cannot_start_says_why(server: Server) -> None:
    folder = server.folder / "kernels" / "broken"
    folder.mkdir(parents=True)
    spec = {"argv": ["/no/such/program", "{connection_file}"], "display_name": "Broken", "language": "x"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    manager = server.manager(kernel_name="broken", kernel_dirs=[str(folder.parent)])
    with pytest.raises(RuntimeError, match="could not be started"):
        await manager.start_kernel()
    assert not manager.has_kernel


async def test_a_shutdown_leaves_no_process_and_no_file(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run(GRANDCHILDREN)
    pids = [*(await reader.value("pids")), server.relay(manager).running.pid]
    assert all(alive(pid) for pid in pids)
    await manager.shutdown_kernel()
    await until(lambda: not any(alive(pid) for pid in pids), "everything to end")
    assert connection_of(manager) is None
    assert not list(server.short.glob("k-*"))
    assert manager.kernel_id not in server.session.kernels


async def test_a_shutdown_in_the_middle_of_a_move_ends_both_processes(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import time")
    reader.send("time.sleep(100)")
    await server.flip(manager, "worker", wait=False)
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: kernel.status().move.step == "checking", "the move to wait for the cell")
    await manager.shutdown_kernel()
    assert manager.kernel_id not in server.session.kernels
    assert not list(server.short.glob("k-*"))


async def test_a_restart_in_the_middle_of_a_move_ends_the_move(server: Server) -> None:
    manager, reader = await server.open()
    reader.send("import time; time.sleep(100)")
    await server.flip(manager, "worker", wait=False)
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: kernel.status().move.step == "checking", "the move to wait for the cell")
    await manager.restart_kernel()
    assert (await reader.run("x = 1")).status == "ok"
    status = await server.status(manager)
    assert (status.placement, status.move.step) == ("server", "failed")


async def test_the_parked_process_of_a_move_goes_with_the_kernel(server: Server) -> None:
    manager, _ = await server.open()
    old = server.relay(manager).running.pid
    await server.flip(manager, "worker")
    kernel = server.session.kernels[manager.kernel_id]
    assert kernel.parked is not None
    await until(lambda: _state(old) == "T", "the old process to be stopped")
    await manager.shutdown_kernel()
    assert not alive(old)


async def test_a_lost_worker_brings_the_kernel_back_with_its_last_state(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("x = [1]")
    await server.flip(manager, "worker")
    assert (await reader.run("x.append(3)")).status == "ok"
    running = reader.send("import time; time.sleep(100)")
    waiting = reader.send("never = 1")
    await until(lambda: server.relay(manager).in_flight, "the cell to run")
    await server.call(server.workers[0].lose())
    await reader.finish(running, 10)
    await reader.finish(waiting, 10)
    assert (running.errors, waiting.status) == (["GpuLost"], "aborted")
    assert await reader.value("x") == [1]
    status = await server.status(manager)
    assert status.placement == "server"
    assert await manager.is_alive()


async def test_twenty_five_kernels_come_and_go(server: Server) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(25):
        manager = server.manager()
        await manager.start_kernel(cwd=str(server.folder))
        await manager.shutdown_kernel(now=True)
    assert not server.session.kernels
    assert not list(server.short.glob("k-*"))
    assert len(os.listdir("/proc/self/fd")) < before + 20


async def test_a_kernel_over_ipc_with_encryption_restarts_at_the_same_address(server: Server) -> None:
    place = server.short / "addr"
    place.mkdir()
    manager, reader = await server.open(transport="ipc", ip=str(place / "k"), transport_encryption="auto")
    await reader.run("x = 1")
    assert connection_of(manager)["curve_publickey"]
    await manager.restart_kernel()
    assert not await reader.value("'x' in globals()")
    late = await server.reader(manager)
    assert (await late.run("1")).status == "ok"


async def test_sigterm_interrupts_the_cell_and_saves_before_the_end(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("x = 41; import time, multiprocessing as m")
    child = "p = m.get_context('fork').Process(target=time.sleep, args=(100,))"
    assert not (await reader.run(f"{child}; p.start(); p.terminate(); p.join(5)")).text
    assert await reader.value("p.exitcode") == -signal.SIGTERM
    reader.send("try:\n    time.sleep(100)\nfinally:\n    x += 1")
    await until(lambda: server.relay(manager).in_flight, "the cell to run")
    await asyncio.sleep(0.2)
    process = server.relay(manager).running
    await server.call(_mark_stopping(server, manager.kernel_id))
    await server.call(process.signal(signal.SIGTERM))
    await until(process.exited.done, "the kernel to end", 15)
    assert process.exited.result() == 0
    saved = await asyncio.to_thread(server.store.list)
    assert [(one.reason, one.kernel) for one in saved] == [("worker-stop", manager.kernel_id)]
    manager, reader = await server.open()
    await server.call(server.session.kernels[manager.kernel_id].restore(saved[0].id, None))
    assert await reader.value("x") == 42


async def test_a_kernel_whose_server_is_killed_saves_itself_and_ends(server: Server, tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    snapshots = tmp_path / "snapshots"
    program = textwrap.dedent(
        f"""
        import asyncio, os, sys, uuid, pathlib
        from gpusession.kernels.here import HerePlace
        from gpusession.kernels.ports import KernelCommand
        from gpusession.kernels.relay import Relay
        from gpusession.kernels.sockets import Address
        from jupyter_client.asynchronous import AsyncKernelClient
        async def main():
            key = b"k" * 32
            relay = Relay("k1", Address(), key, make_id=lambda: uuid.uuid4().hex)
            place = HerePlace(pathlib.Path({str(server.short / "other")!r}))
            argv = (sys.executable, "-m", "gpusession.kernels.ipython", "-f", "{{connection_file}}")
            env = {{**os.environ, "GPUHUB_SNAPSHOTS": {str(snapshots)!r}, "GPUHUB_KERNEL_ID": "k1"}}
            process = await place.start_kernel(KernelCommand("k1", argv, env, "/tmp", key))
            await relay.prove(process, 30)
            await relay.switch(process)
            await relay.started()
            ports = {{f"{{name}}_port": port for name, port in relay.ports.items()}}
            client = AsyncKernelClient(ip="127.0.0.1", **ports)
            client.session.key = key
            client.start_channels()
            await client.wait_for_ready(timeout=30)
            await client.execute_interactive("x = 7", timeout=30)
            pathlib.Path({str(pids)!r}).write_text(str(process.pid))
            await asyncio.sleep(1000)
        asyncio.run(main())
        """
    )
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    await until(lambda: pids.exists() and pids.read_text(), "the kernel")
    kernel = int(pids.read_text())
    running.kill()
    await running.wait()
    await until(lambda: not alive(kernel), "the orphan to end", 15)
    assert len(await asyncio.to_thread(lambda: list(snapshots.iterdir()))) >= 1


def connection_of(manager: Any) -> Any:
    file = Path(manager.connection_file)
    return json.loads(file.read_text()) if file.exists() else None


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _mark_stopping(server: Server, kernel_id: str) -> None:
    server.session.stopping(kernel_id)
