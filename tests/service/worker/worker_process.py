"""A real worker as a process of its own, and links to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from gpulease.models import Link
from gpusession.kernels.ports import KernelCommand
from gpusession.leases import KeyPair
from gpusession.worker.far import FarProgram
from gpusession.worker.link import WorkerConnection, connect, make_key

PATH = os.environ["PATH"]


class RunningWorker:
    """One worker; it and all that it started end with `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.host, self.key = make_key(), make_key()
        self.process: subprocess.Popen[bytes] | None = None
        self.links: list[WorkerConnection] = []
        self.seen: set[psutil.Process] = set()
        self.home.mkdir()
        (folder / "here").mkdir(mode=0o700)

    async def start(
        self, *, listen: str | None = None, env: Mapping[str, str] | None = None, **seconds: float
    ) -> None:
        self.authorize(self.key)
        (self.folder / "host_key").write_text(self.host.private)
        (self.folder / "ready.json").unlink(missing_ok=True)
        environment = {
            "PATH": PATH,
            "HOME": str(self.home),
            "CUDA_VISIBLE_DEVICES": "SIM-0",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "NVIDIA_VISIBLE_DEVICES": "void",
            "GPUHUB_LEASE": "lease-1",
            "GPUHUB_FENCE_SECONDS": str(seconds.get("fence", 60)),
            "GPUHUB_GRACE_SECONDS": str(seconds.get("grace", 10)),
            **(env or {}),
        }
        arguments = ["--dir", str(self.folder), *(["--listen", listen] if listen else [])]
        command = [sys.executable, "-P", "-m", "gpusession.worker", *arguments]
        self._spawn(command, environment)
        await until(self.is_ready, "the worker is ready", 30)

    def _spawn(self, command: list[str], environment: Mapping[str, str]) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                # As under nohup: what is ignored here must not be ignored by what runs on the worker.
                ["sh", "-c", "trap '' INT QUIT HUP; exec \"$@\"", "sh", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def authorize(self, key: KeyPair) -> None:
        (self.folder / "authorized_key").write_text(key.public + "\n")

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(self.log())
        return (self.folder / "ready.json").exists()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def link(self) -> Link:
        said = json.loads((self.folder / "ready.json").read_text())
        return Link(address=said["address"], host_key=self.host.public)

    async def connect(self, key: KeyPair | None = None, link: Link | None = None) -> WorkerConnection:
        made = await connect(link or self.link, key or self.key, runtime=self.folder / "here")
        self.links.append(made)
        return made

    def command(self, code: str, **more: Any) -> KernelCommand:
        """A process in a kernel's place that runs ``code`` (Python)."""
        return KernelCommand(
            **{
                "kernel_id": "kernel-1",
                "argv": (sys.executable, "-c", code, "{connection_file}"),
                "env": self.env,
                "cwd": str(self.home),
                "key": b"0123456789abcdef",
                **more,
            }
        )

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": str(self.home)}

    def family(self) -> set[psutil.Process]:
        """What it has started, now; remembered for `leaves_nothing`."""
        found = set(psutil.Process(self.pid).children(recursive=True))
        self.seen |= found
        return found

    def left(self) -> list[psutil.Process]:
        return [one for one in self.seen if lives(one)]

    async def ended(self, seconds: float = 20.0) -> int:
        """Wait for its end; return its exit status."""
        process = self.process
        assert process is not None
        await until(lambda: process.poll() is not None, "the worker has ended", seconds)
        return int(process.returncode)

    async def close(self) -> None:
        for link in self.links:
            await link.close()
        if self.process is not None and self.process.poll() is None:
            family = self.family()
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        for one in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.asynccontextmanager
async def running_worker(**settings: Any) -> AsyncIterator[RunningWorker]:
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    worker = RunningWorker(folder)
    try:
        await worker.start(**settings)
        yield worker
    finally:
        await worker.close()
        shutil.rmtree(folder)


async def until(check: Callable[[], Any], what: str, seconds: float = 10.0) -> Any:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while loop.time() < deadline:
        if answer := check():
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {seconds} s until {what}")


async def all_of(program: FarProgram, stdin: bytes | None = b"") -> tuple[bytes, bytes, int]:
    """Feed a program, read both its outputs to the end, and its status."""

    async def feed() -> None:
        if stdin is not None:
            await program.write(stdin)
            await program.write_eof()

    async def read(stream: Any) -> bytes:
        parts = []
        while part := await program.read(stream):
            parts.append(part)
        return b"".join(parts)

    async with asyncio.timeout(60):
        _, out, err = await asyncio.gather(feed(), read("stdout"), read("stderr"))
        return out, err, await program.exited


async def read_until(program: FarProgram, wanted: bytes, seconds: float = 20.0) -> bytes:
    heard = b""
    async with asyncio.timeout(seconds):
        while wanted not in heard:
            part = await program.read("stdout")
            assert part, f"it ended after {heard!r}"
            heard += part
    return heard


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
