"""Starting one process such that nothing of it can be left behind.

Exists so that the server and the worker start kernels in the same way. Promises: the process
runs in a session of its own with clean signal dispositions; its end is known at once; `kill`
leaves none of its descendants; it never outlives us as an orphan (how: see `initprocess`).
Standard library only: workers start with little.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpusession.kernels import initprocess

PATH_BYTES = 107
"""The longest path of a Unix socket (108 bytes in all, one of them the end)."""

LOOPBACK = "127.0.0.1"

ORDER = ("shell", "iopub", "stdin", "hb", "control")

_SCRIPT = os.path.abspath(initprocess.__file__)


@dataclass(frozen=True)
class KernelFiles:
    """What a kernel reads at its start, and where it will listen."""

    connection_file: Path
    channels: dict[str, str]
    """ZeroMQ addresses by channel."""


def lay_out(
    folder: Path, key: bytes, kernel_name: str, *, transport: Literal["ipc", "tcp"] = "ipc"
) -> KernelFiles:
    """Make ``folder`` (0700: it is what keeps others out) and the connection file in it (0600).

    Raises ValueError when the folder's path is too long for sockets. ``tcp`` is for kernels that
    cannot do ipc: ports of this machine that are free at the moment, as Jupyter itself chooses them.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    stem = str(folder / "k")
    if transport == "tcp":
        ip, ports = LOOPBACK, dict(zip(ORDER, _free_ports(len(ORDER)), strict=True))
        channels = {channel: f"tcp://{ip}:{port}" for channel, port in ports.items()}
    else:
        ip, ports = stem, {channel: number for number, channel in enumerate(ORDER, 1)}
        channels = {channel: f"ipc://{stem}-{number}" for channel, number in ports.items()}
        longest = f"{stem}-{len(ORDER)}"
        if len(os.fsencode(longest)) > PATH_BYTES:
            raise ValueError(f"the path of a kernel's sockets is longer than {PATH_BYTES} bytes: {longest}")
    info = {
        **{f"{channel}_port": number for channel, number in ports.items()},
        "transport": transport,
        "ip": ip,
        "key": key.decode("ascii"),
        "signature_scheme": "hmac-sha256",
        "kernel_name": kernel_name,
    }
    file = folder / "connection.json"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="utf-8") as stream:
        json.dump(info, stream)
    file.chmod(0o600)
    return KernelFiles(file, channels)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in bound]


async def start_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    log: Path | None = None,
    files: tuple[int, int, int] | None = None,
    terminal: bool = False,
) -> KernelProcess:
    """Start a process; returns once it runs. Raises OSError (no such program, no such folder).

    ``log``: a file that its output is added to; without it output goes where ours goes.
    ``files``: descriptors for its standard input, output and error instead; the caller closes his
    copies. ``terminal``: the first of them becomes its controlling terminal.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        popen = _spawn(theirs, list(argv), dict(env), cwd, log, files, terminal)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    process = KernelProcess(ours, popen)
    try:
        await asyncio.shield(process._started)
    except BaseException:
        await process.kill()
        raise
    return process


def _spawn(
    control: socket.socket,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    log: Path | None,
    files: tuple[int, int, int] | None,
    terminal: bool,
) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        stdin: int = subprocess.DEVNULL
        stdout = stderr = None
        if files is not None:
            stdin, stdout, stderr = files
        elif log is not None:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, handle)
            stdout = stderr = handle
        init = [sys.executable, "-I", "-S", _SCRIPT, str(control.fileno()), "1" if terminal else "0"]
        return subprocess.Popen(
            [*init, *argv],
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(control.fileno(),),
            start_new_session=True,
        )


class KernelProcess:
    """One process with its family. All methods run on the loop that started it."""

    def __init__(self, control: socket.socket, popen: subprocess.Popen[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, self._popen = control, popen
        self._heard = b""
        self._started: asyncio.Future[int] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Done with the exit status (negative: the signal) once it and its descendants are gone."""
        self._loop.add_reader(control.fileno(), self._hear)

    @property
    def pid(self) -> int:
        return self._started.result()

    async def signal(self, signum: int) -> None:
        """Signal its process group. One that has ended is fine."""
        self._say(f"signal {int(signum)}")

    async def kill(self) -> None:
        """End it and all its descendants now; returns once they are gone. Idempotent."""
        self._say("kill")
        await asyncio.shield(self._gone)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._control.send(line.encode() + b"\n")

    def _hear(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"pid":
                self._started.set_result(int(number))
            elif word == b"failed":
                self._started.set_exception(OSError(int(number), os.strerror(int(number))))
                self._started.exception()
            elif word == b"exited" and not self.exited.done():
                self.exited.set_result(int(number))
        if not data:
            self._over()

    def _over(self) -> None:
        """The init process has ended, as a rule after saying so."""
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        if not self._started.done():
            self._started.set_exception(OSError(errno.ECHILD, "its init process ended"))
            self._started.exception()
        elif self._started.exception() is None and not self.exited.done():
            _kill_session(self._started.result())
            self.exited.set_result(-signal.SIGKILL)
        if not self.exited.done():
            self.exited.set_result(127)
        self._wait_for_init()

    def _wait_for_init(self) -> None:
        # Its socket closes as it exits: a moment later at most it can be waited for.
        if self._popen.poll() is None:
            self._loop.call_later(0.002, self._wait_for_init)
        elif not self._gone.done():
            self._gone.set_result(None)


def _kill_session(leader: int) -> None:
    """Kill what is left of a session whose init process was killed."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == leader:
                os.kill(int(name), signal.SIGKILL)
