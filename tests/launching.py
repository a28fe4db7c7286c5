"""A real launcher for tests, and stand-ins for the Python prefixes that it starts things in.

`running_launcher` is the daemon itself as a process of its own, with folders in a short temporary
place. `stand_in_prefix` makes a prefix whose ``bin/python`` is a small script that plays the
worker or server: it writes ready.json, and does what its arguments say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from gpuhub.backends.local import LocalBackend
from gpuhub.telemetry.sources import Machine
from gpulease.errors import GpuhubError
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import Account, UnitOrder, UnitSeen

STAND_IN = '''
import json, os, signal, subprocess, sys, time

words = sys.argv[1:]
folder = words[words.index("--dir") + 1] if "--dir" in words else os.environ.get("GPUHUB_RUNTIME_DIR", ".")
orders = words[words.index("--dir") + 2:] if "--dir" in words else words[3:]
print("started with", orders, flush=True)

def double_fork(target):
    """Start target() so that it has no parent, no session, no environment of ours."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            target()
        os._exit(0)
    os.wait()

def scrubbed():
    os.execve("/bin/sleep", ["sleep", "3600"], {})

def bye(number, frame):
    with open(os.path.join(folder, "saved"), "w") as file:
        file.write("saved in time")
    sys.exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in orders else bye)
if "hide-children" in orders:
    double_fork(scrubbed)
    subprocess.Popen(["nohup", "sleep", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                     start_new_session=True)
    subprocess.Popen(["env", "-i", "setsid", "sleep", "3600"])
if "burn" in orders and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        pass
if "hold" in orders:
    held = open(orders[orders.index("hold") + 1])
if "talk" in orders:
    for number in range(200_000):
        print("line", number)
    sys.stdout.flush()
if "die" in orders:
    sys.exit(7)
if "never-ready" not in orders:
    with open(os.path.join(folder, "ready.new"), "w") as file:
        json.dump({"address": "unix:" + os.path.join(folder, "ssh.sock"), "environment": dict(os.environ),
                   "cwd": os.getcwd(), "uid": os.getuid(), "groups": os.getgroups(),
                   "umask": os.umask(0o077)}, file)
    os.replace(os.path.join(folder, "ready.new"), os.path.join(folder, "ready.json"))
while True:
    time.sleep(3600)
'''


def stand_in_prefix(folder: Path) -> Path:
    """Make a prefix below ``folder`` that any account may use."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "stand_in.py").write_text(STAND_IN)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -I {programs}/stand_in.py "$@"\n')
    for path in (folder, programs):
        path.chmod(0o755)
    python.chmod(0o755)
    (programs / "stand_in.py").chmod(0o644)
    return folder


@contextlib.contextmanager
def short_folder(mode: int = 0o711) -> Iterator[Path]:
    """A temporary folder with a short path (Unix sockets), which other accounts can pass through."""
    with tempfile.TemporaryDirectory(prefix="gh-", dir="/tmp", ignore_cleanup_errors=True) as name:
        os.chmod(name, mode)
        yield Path(name)


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until ``condition`` (plain or async) gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        await asyncio.sleep(0.02)


class RunningLauncher:
    """The daemon as a process, with what it was told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.prefix = stand_in_prefix(folder / "prefix")
        self.socket = folder / "launcher.sock"
        self.settings: dict[str, Any] = {
            "socket": str(self.socket),
            "runtime": str(folder / "run"),
            "state": str(folder / "state"),
            "prefixes": [str(self.prefix)],
            "devices": {"SIM-0": [], "SIM-1": []},
            "accounts": {"mode": "shared", "allow_shared_root": True},
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.inside: list[str] = []
        """A command that runs the launcher's own, where a test wants one around it."""
        self.devices: Path = folder
        self.client = LauncherClient(self.socket)

    async def start(self) -> None:
        path = self.folder / "settings.json"
        path.write_text(json.dumps(self.settings))
        path.chmod(0o600)
        self.process = self._open(path)
        await until(self.answers, "the launcher answers")

    def _open(self, settings: Path) -> subprocess.Popen[bytes]:
        with open(self.folder / "launcher.log", "ab") as log:
            return subprocess.Popen(
                [*self.inside, sys.executable, "-m", "gpuspawner.launcher", "--settings", str(settings)],
                stderr=log,
            )

    async def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the launcher ended: {self.log()}")
        try:
            await LauncherClient(self.socket, patience_seconds=0).list()
        except GpuhubError:
            return False
        return True

    def start_another(self) -> int:
        """Start a second launcher for the same place; return its exit status."""
        return self._open(self.folder / "settings.json").wait(20)

    def log(self) -> str:
        return (self.folder / "launcher.log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(10)
        self.process = None
        return status

    async def close(self) -> None:
        """End every unit, then the launcher."""
        if self.process is None:
            await self.start()
        for unit in await self.client.list():
            await self.client.stop(unit.id, 0)
        await until(self._all_ended, "every unit has ended")
        self.end()

    async def _all_ended(self) -> bool:
        return all(unit.phase == "exited" for unit in await self.client.list())

    async def seen(self, unit_id: str) -> UnitSeen | None:
        return next((unit for unit in await self.client.list() if unit.id == unit_id), None)

    async def ready(self, unit_id: str) -> UnitSeen:
        async def look() -> UnitSeen | None:
            unit = await self.seen(unit_id)
            return unit if unit is not None and unit.ready else None

        return await until(look, f"{unit_id} is ready")

    async def exited(self, unit_id: str, seconds: float = 20.0) -> UnitSeen:
        async def look() -> UnitSeen | None:
            unit = await self.seen(unit_id)
            return unit if unit is not None and unit.phase == "exited" else None

        return await until(look, f"{unit_id} has ended", seconds)

    def order(self, unit_id: str, *args: str, **fields: Any) -> UnitOrder:
        content: dict[str, Any] = {
            "kind": "worker",
            "id": unit_id,
            "prefix": str(self.prefix),
            "args": list(args),
            "env": {"HOME": str(self.folder)},
            "grace_seconds": 10.0,
            **fields,
        }
        return UnitOrder(**content)


@contextlib.asynccontextmanager
async def running_launcher(**settings: Any) -> AsyncIterator[RunningLauncher]:
    """A launcher that ends, with all it started, when the block does."""
    with short_folder() as folder:
        launcher = RunningLauncher(folder, **settings)
        await launcher.start()
        try:
            yield launcher
        finally:
            await launcher.close()


def place(unit: UnitSeen) -> Path:
    """The unit's folder."""
    return Path(unit.folder)


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def numbered(uid: int, home: Path, name: str = "ann") -> Account:
    return Account(uid=uid, gid=uid, name=name, home=str(home))


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def interrupt(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running_local_backend(gpus: str = "sim:2", **settings: Any) -> AsyncIterator[LocalBackend]:
    """The local backend over a launcher of its own, with stand-ins for workers."""
    async with running_launcher(**settings) as launcher:
        yield LocalBackend(
            launcher.client,
            gpus=Machine(gpus).gpus,
            accounts=Accounts("shared", homes=launcher.folder / "homes"),
            prefix=str(launcher.prefix),
        )
