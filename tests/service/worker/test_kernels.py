"""Kernels on a real worker: reached through the link, signalled, lost, fenced, saved."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from gpulease import errors
from gpusession.kernels.ports import CHANNELS, LINK_LOST, RunningKernel
from gpusession.state.store import SnapshotStore
from gpusession.worker.far import FarKernel
from gpusession.worker.link import WorkerConnection
from tests.service.worker.worker_process import (
    RunningWorker,
    all_of,
    lives,
    read_until,
    running_worker,
    until,
)

SAVES = """
import os, signal, sys, time
def save(number, frame):
    time.sleep(0.2)
    with open("saved-" + os.environ.get("NAME", ""), "w") as file:
        file.write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("up-" + os.environ.get("NAME", ""), "w").close()
while True:
    time.sleep(0.1)
"""
"""In a kernel's place: saves at SIGTERM, as our kernel does."""

STUBBORN = """
import signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
open("up-", "w").close()
while True:
    time.sleep(0.1)
"""


async def start(
    worker: RunningWorker, link: WorkerConnection, code: str, name: str = "", **more: Any
) -> FarKernel:
    command = worker.command(code, env={**worker.env, "NAME": name}, **more)
    kernel = await link.place.start_kernel(command)
    await until(lambda: (worker.home / f"up-{name}").exists(), "the kernel is up")
    worker.family()
    return kernel


class Client:
    """Speaks Jupyter's protocol to a running kernel."""

    def __init__(self, kernel: RunningKernel, key: bytes) -> None:
        self.context = zmq.asyncio.Context()
        self.session = Session(key=key)
        self.shell = self.context.socket(zmq.DEALER)
        self.control = self.context.socket(zmq.DEALER)
        self.iopub = self.context.socket(zmq.SUB)
        self.iopub.subscribe(b"")
        for name in ("shell", "control", "iopub"):
            socket = getattr(self, name)
            socket.linger = 0
            socket.connect(kernel.channels[name])

    async def request(self, channel: Any, kind: str, content: dict[str, Any], seconds: float = 60) -> Any:
        message = self.session.msg(kind, content)
        await channel.send_multipart(self.session.serialize(message))
        async with asyncio.timeout(seconds):
            while True:
                reply = self._read(await channel.recv_multipart())
                if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                    return reply["content"]

    def _read(self, frames: list[bytes]) -> Any:
        _, frames = self.session.feed_identities(frames)
        return self.session.deserialize(frames)

    async def live(self) -> None:
        """Wait until requests are answered and output arrives."""
        async with asyncio.timeout(60):
            while True:
                await self.request(self.shell, "kernel_info_request", {})
                if await self.iopub.poll(300):
                    return

    async def run(self, code: str) -> str:
        """Run a cell; return what it printed."""
        message = self.session.msg("execute_request", {"code": code, "silent": False})
        await self.shell.send_multipart(self.session.serialize(message))
        printed = ""
        async with asyncio.timeout(60):
            while True:
                heard = self._read(await self.iopub.recv_multipart())
                if heard["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                    continue
                if heard["msg_type"] == "stream":
                    printed += heard["content"]["text"]
                if heard["msg_type"] == "error":
                    printed += heard["content"]["ename"]
                if heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle":
                    return printed

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
async def notebook(worker: RunningWorker, link: WorkerConnection) -> AsyncIterator[tuple[FarKernel, Client]]:
    """A real ipykernel on the worker and a client of it."""
    command = worker.command(
        "", argv=(sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    )
    kernel = await link.place.start_kernel(command)
    client = Client(kernel, command.key)
    await client.live()
    yield kernel, client
    client.close()


# --- a kernel's life


async def test_a_real_kernel_answers_through_the_link(
    worker: RunningWorker, notebook: tuple[FarKernel, Client]
) -> None:
    kernel, client = notebook
    assert kernel.placement == "worker"
    assert set(kernel.channels) == set(CHANNELS)
    assert await client.run("x = 20") == ""
    printed = await client.run("import os; print(x + 1, os.getpid(), os.environ['CUDA_VISIBLE_DEVICES'])")
    assert printed == f"21 {kernel.pid} SIM-0\n"
    assert psutil.Process(worker.pid) in psutil.Process(kernel.pid).parents()


async def test_much_output_comes_through_whole(notebook: tuple[FarKernel, Client]) -> None:
    _, client = notebook
    printed = await client.run("import sys\nfor n in range(200): print('z' * 50_000)")
    assert len(printed) == 200 * 50_001


async def test_an_interrupt_reaches_the_running_cell(notebook: tuple[FarKernel, Client]) -> None:
    kernel, client = notebook
    running = asyncio.create_task(client.run("import time; time.sleep(60)"))
    await asyncio.sleep(0.5)
    await kernel.signal(signal.SIGINT)
    assert await asyncio.wait_for(running, 10) == "KeyboardInterrupt"


async def test_a_parked_kernel_rests_and_goes_on_when_woken(notebook: tuple[FarKernel, Client]) -> None:
    kernel, client = notebook
    await kernel.signal(signal.SIGSTOP)
    await until(lambda: psutil.Process(kernel.pid).status() == psutil.STATUS_STOPPED, "it is parked")
    await kernel.signal(signal.SIGCONT)
    assert await client.run("print('awake')") == "awake\n"


async def test_the_end_of_a_kernel_is_known_at_once_with_its_status(
    notebook: tuple[FarKernel, Client],
) -> None:
    kernel, client = notebook
    began = time.monotonic()
    running = asyncio.create_task(client.run("import os; os._exit(7)"))
    assert await asyncio.wait_for(kernel.exited, 5) == 7
    assert time.monotonic() - began < 5
    running.cancel()
    await kernel.signal(signal.SIGINT)
    await kernel.kill()


async def test_killing_a_kernel_ends_its_children_too_parked_or_not(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    code = (
        "import subprocess as s, time; s.Popen(['setsid', 'sleep', '60']); open('up-', 'w'); time.sleep(60)"
    )
    kernel = await start(worker, link, code)
    await until(lambda: len(worker.family()) >= 3, "its child is there")
    await kernel.signal(signal.SIGSTOP)
    async with asyncio.timeout(10):
        await kernel.kill()
        assert await kernel.exited == -signal.SIGKILL
        await kernel.kill()
    await until(lambda: not worker.left(), "nothing is left")
    assert link.kernels == {}


async def test_a_kernel_gets_a_connection_file_of_its_own(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    code = (
        "import shutil, sys; shutil.copy(sys.argv[1], 'seen'); import os; print(os.stat(sys.argv[1]).st_mode)"
    )
    kernel = await link.start_kernel(worker.command(code, key=b"a-secret-key"))
    assert await asyncio.wait_for(kernel.exited, 10) == 0
    seen = json.loads((worker.home / "seen").read_text())
    assert (seen["key"], seen["transport"]) == ("a-secret-key", "ipc")
    assert seen["ip"].startswith(f"{worker.folder}/run/")
    await until(lambda: os.listdir(worker.folder / "run") == [], "its sockets' folder is gone")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"argv": ("no-such-kernel",)}, "no-such-kernel was not found"),
        ({"cwd": "/no/such/folder"}, "/no/such/folder does not exist"),
        ({"env": {"BIG": "x" * (5 << 20)}}, "too large"),
        ({"env": {"BIG": "x" * (1 << 20), "PATH": "/usr/bin"}}, "too large"),
    ],
)
async def test_a_kernel_that_cannot_be_started_is_refused_with_a_sentence(
    worker: RunningWorker, link: WorkerConnection, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.InvalidOption) as refused:
        await link.start_kernel(worker.command("pass", **more))
    assert said in refused.value.message
    assert os.listdir(worker.folder / "run") == []
    assert link.kernels == {}


async def test_a_kernel_that_ends_while_it_starts_is_told_like_any_other(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    kernels = await asyncio.gather(
        *(link.start_kernel(worker.command("", argv=("sh", "-c", f"exit {n}"))) for n in range(1, 9))
    )
    async with asyncio.timeout(10):
        assert [await kernel.exited for kernel in kernels] == list(range(1, 9))


# --- losing the worker


async def test_a_killed_worker_is_noticed_within_a_second(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    kernel = await start(worker, link, SAVES)
    program = await link.run(["sleep", "60"], env=worker.env, cwd="/")
    os.kill(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(2):
        assert await link.lost
        assert await kernel.exited == LINK_LOST
        assert await program.exited == LINK_LOST
    await kernel.signal(signal.SIGINT)
    await kernel.kill()
    with pytest.raises(errors.LinkLost):
        await link.start_kernel(worker.command("pass"))


async def test_a_kernel_of_a_killed_worker_still_saves_itself(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    await start(worker, link, SAVES)
    os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: (worker.home / "saved-").exists(), "it has saved")
    await until(lambda: not worker.left(), "nothing is left")


async def test_a_worker_that_stands_still_is_noticed_by_its_silence_and_counts_it_when_it_wakes() -> None:
    async with running_worker(fence=8) as worker:
        link = await worker.connect()
        kernel = await start(worker, link, SAVES)
        os.kill(worker.pid, signal.SIGSTOP)
        async with asyncio.timeout(20):
            await link.lost
            assert await kernel.exited == LINK_LOST
        assert worker.left()
        os.kill(worker.pid, signal.SIGCONT)
        # The server began to count when it lost the link: so must the worker, not when it woke up.
        await until(lambda: not worker.left(), "its kernel has ended", 3)


# --- losing the server: the fence


async def test_the_fence_has_kernels_save_and_ends_them_in_time() -> None:
    async with running_worker(fence=6) as worker:
        link = await worker.connect()
        await start(worker, link, SAVES)
        stubborn = await start(worker, link, STUBBORN, kernel_id="kernel-2")
        process = psutil.Process(stubborn.pid)
        began = time.monotonic()
        await link.close()
        assert await stubborn.exited == LINK_LOST
        await asyncio.sleep(0.3)
        assert len(worker.left()) == 4  # the kernels and what stands between
        await until(lambda: (worker.home / "saved-").exists(), "it has saved", 8)
        assert lives(process)
        await until(lambda: not worker.left(), "the fence has ended them", 8)
        assert 3 < time.monotonic() - began < 8
        assert worker.process is not None
        assert worker.process.poll() is None


async def test_what_is_kept_passes_the_fence() -> None:
    async with running_worker(fence=1) as worker:
        link = await worker.connect()
        text = "echo on; while [ ! -e go ]; do sleep 0.05; done; touch finished"
        program = await link.run(["sh", "-c", text], env=worker.env, cwd=str(worker.home), keep=True)
        await read_until(program, b"on")
        await start(worker, link, SAVES)
        await link.close()
        await until(lambda: (worker.home / "saved-").exists(), "the kernel has saved")
        await asyncio.sleep(1)
        (worker.home / "go").touch()
        await until(lambda: (worker.home / "finished").exists(), "the program went on")


async def test_a_server_that_comes_back_finds_its_kernels_and_may_claim_them() -> None:
    async with running_worker(fence=8) as worker:
        first = await worker.connect()
        await start(worker, first, SAVES, "a", kernel_id="claimed")
        left = await start(worker, first, SAVES, "b", kernel_id="unclaimed")
        process = psutil.Process(left.pid)
        await first.close()
        second = await worker.connect()
        assert set(second.kernels) == {"claimed", "unclaimed"}
        kernel = await second.adopt_kernel("claimed")
        with pytest.raises(errors.NotFound):
            await second.adopt_kernel("another")
        await until(lambda: not lives(process), "the fence ended the one that nobody claimed", 12)
        assert (worker.home / "saved-b").exists()
        assert not (worker.home / "saved-a").exists()
        assert not kernel.exited.done()
        await kernel.kill()
        assert await kernel.exited == -signal.SIGKILL


async def test_a_kernel_that_ends_between_two_connections_is_not_offered(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    kernel = await start(worker, link, SAVES)
    await link.close()
    os.kill(kernel.pid or 0, signal.SIGKILL)
    await until(lambda: not worker.left(), "it is gone")
    assert (await worker.connect()).kernels == {}


async def test_a_parked_kernel_is_not_saved_by_the_fence() -> None:
    async with running_worker(fence=1) as worker:
        link = await worker.connect()
        kernel = await start(worker, link, SAVES)
        await kernel.signal(signal.SIGSTOP)
        await link.close()
        await until(lambda: not worker.left(), "it is gone")
        assert not (worker.home / "saved-").exists()


# --- the worker's end


async def test_a_worker_that_is_told_to_end_saves_and_leaves_nothing(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    kernel = await start(worker, link, SAVES)
    program = await link.run(["bash", "-i"], env=worker.env, cwd="/")
    hidden = "(setsid sleep 600 &) ; env -i setsid sleep 601 & nohup sleep 602 >/dev/null & echo on; wait"
    hiding = await link.run(["sh", "-c", hidden], env=worker.env, cwd="/")
    await read_until(hiding, b"on")
    await until(lambda: len(worker.family()) >= 9, "all have started")
    os.kill(worker.pid, signal.SIGTERM)
    assert await worker.ended() == 0
    assert (worker.home / "saved-").read_text() == "saved"
    async with asyncio.timeout(5):
        assert await kernel.exited == 0
        assert await program.exited != 0
        await link.lost
    await until(lambda: not worker.left(), "nothing is left", 2)
    assert not (worker.folder / "ssh").exists()
    assert not (worker.folder / "run").exists()


async def test_what_will_not_end_is_killed_before_the_grace_is_over() -> None:
    async with running_worker(grace=3) as worker:
        link = await worker.connect()
        await start(worker, link, STUBBORN)
        began = time.monotonic()
        os.kill(worker.pid, signal.SIGTERM)
        assert await worker.ended() == 0
        assert 2 < time.monotonic() - began < 4
        await until(lambda: not worker.left(), "nothing is left", 2)


async def test_a_parked_kernel_is_not_saved_at_the_end(worker: RunningWorker, link: WorkerConnection) -> None:
    kernel = await start(worker, link, SAVES)
    await kernel.signal(signal.SIGSTOP)
    os.kill(worker.pid, signal.SIGTERM)
    assert await worker.ended() == 0
    assert await kernel.exited == -signal.SIGKILL
    assert not (worker.home / "saved-").exists()


async def test_a_worker_that_ends_starts_nothing_more() -> None:
    async with running_worker(grace=4) as worker:
        link = await worker.connect()
        await start(worker, link, STUBBORN)
        os.kill(worker.pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises(errors.Unavailable):
            await link.run(["true"], env=worker.env, cwd="/")
        with pytest.raises(errors.Unavailable):
            await link.start_kernel(worker.command("pass"))
        assert await worker.ended() == 0


async def test_orphans_whose_init_process_was_killed_end_with_the_worker(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await link.run(
        ["sh", "-c", "(setsid sleep 600 &); echo on; wait; sleep 600"], env=worker.env, cwd="/"
    )
    await read_until(program, b"on")
    family = await until(lambda: found if len(found := worker.family()) >= 4 else None, "all are there")
    (init,) = [one for one in family if one.ppid() == worker.pid]
    init.kill()
    async with asyncio.timeout(5):
        assert await program.exited != 0
    os.kill(worker.pid, signal.SIGTERM)
    assert await worker.ended() == 0
    await until(lambda: not worker.left(), "nothing is left", 2)


async def test_a_worker_collects_the_orphans_that_have_ended(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    for _ in range(3):
        await all_of(await link.run(["sh", "-c", "(setsid sleep 0.1 &)"], env=worker.env, cwd="/"))
    await until(lambda: psutil.Process(worker.pid).children() == [], "no zombie is left")


async def test_a_notebook_kernel_saves_its_variables_when_the_worker_ends(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    env = {**worker.env, "GPUHUB_SNAPSHOTS": str(worker.home / "snapshots"), "GPUHUB_KERNEL_ID": "kernel-1"}
    argv = (sys.executable, "-P", "-m", "gpusession.kernels.ipython", "-f", "{connection_file}")
    command = worker.command("", argv=argv, env=env)
    kernel = await link.place.start_kernel(command)
    client = Client(kernel, command.key)
    try:
        await client.live()
        await client.run("kept = [1, 2, 3]")
        worker.family()
        os.kill(worker.pid, signal.SIGTERM)
        assert await worker.ended() == 0
    finally:
        client.close()
    (saved,) = SnapshotStore(worker.home / "snapshots").list()
    assert (saved.reason, saved.kernel, saved.complete) == ("worker-stop", "kernel-1", True)
    assert "kept" in {one.name for one in saved.verdicts}
    await until(lambda: not worker.left(), "nothing is left", 2)
