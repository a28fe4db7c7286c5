"""One program on the worker (`gpu run`, `gpu shell`): started, its bytes carried, ended with its children.

Promises: what it writes is never dropped and never piles up (who does not read stops it); a file,
a pipe and a terminal behave as they would under a shell; `hang_up` and `kill` reach its whole
process group. With `keep` it outlives the loss of its reader: its output goes on into a file
``gpu-run-PID.log`` in its folder, as nohup does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gpulease.errors import InvalidOption
from gpusession.kernels.launch import KernelProcess, start_process
from gpusession.worker.protocol import TerminalKind, TerminalSize

CHUNK_BYTES = 128 * 1024
PIPE_BYTES = 1024 * 1024
HANG_UP_SECONDS = 3.0
"""What a program that is hung up has until it is killed."""
STDOUT, STDERR = "stdout", "stderr"


class Reader(Protocol):
    """Where a program's output goes."""

    def output(self, stream: str, data: bytes) -> None: ...
    def output_ended(self) -> None: ...
    def want_input(self, wanted: bool) -> None: ...


class Program:
    """One running program. Made by `start`, on the loop."""

    def __init__(
        self,
        process: KernelProcess,
        stdin: int,
        outputs: Mapping[str, int],
        *,
        cwd: str,
        keep: bool,
        terminal: bool,
    ) -> None:
        """Take over our ends of the pipes, or of the terminal (the same number for both)."""
        self.pid, self.keep = process.pid, keep
        self.exited = process.exited
        self._loop = asyncio.get_running_loop()
        self._process, self._cwd, self._terminal = process, cwd, terminal
        self._input: int | None = stdin
        self._outputs = dict(outputs)
        for fd in {stdin, *outputs.values()}:
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # no pipe, or a small system-wide limit
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._reader: Reader | None = None
        self._alone = False
        self._file: int | None = None
        self._waiting: list[memoryview] = []
        self._input_ends = False
        self._told = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.exited.add_done_callback(lambda _status: self._has_ended())

    # --- bytes

    @property
    def attached(self) -> bool:
        """Somebody reads it, or it goes on alone by now."""
        return self._reader is not None or self._alone

    @property
    def over(self) -> bool:
        """It has ended, all it wrote was passed on, and nobody is attached."""
        return self.exited.done() and not self._outputs and self._reader is None

    def attach(self, reader: Reader) -> None:
        """Carry bytes from now on. Raises InvalidOption when somebody else reads already."""
        if self.attached:
            raise InvalidOption("This program is attached already.")
        self._reader = reader
        if self._outputs:
            self.flow(True)
        else:
            reader.output_ended()

    def flow(self, wanted: bool) -> None:
        """Read its output, or leave it where it is."""
        for stream, fd in self._outputs.items():
            if wanted:
                self._loop.add_reader(fd, self._readable, stream, fd)
            else:
                self._loop.remove_reader(fd)

    def _readable(self, stream: str, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody holds the terminal any more
            data = b""
        if data:
            self._pass_on(stream, data)
        else:
            self._close_output(stream)

    def _pass_on(self, stream: str, data: bytes) -> None:
        if self._reader is not None:
            self._reader.output(stream, data)
        elif self._alone:
            if self._file is None:
                self._file = self._open_file()
            with contextlib.suppress(OSError):  # a full disk must not stop what was asked to go on
                os.write(self._file, data)

    def _close_output(self, stream: str) -> None:
        fd = self._outputs.pop(stream, None)
        if fd is None:
            return
        self._loop.remove_reader(fd)
        if fd != self._input:
            os.close(fd)
        if not self._outputs:
            self._all_read()

    def _all_read(self) -> None:
        if self._reader is not None and not self._told:
            self._told = True
            self._reader.output_ended()
        if self._terminal or self.exited.done():
            self._close_input()
        if self._file is not None and self.exited.done():
            os.close(self._file)
            self._file = None

    def feed(self, data: bytes) -> None:
        """Write to its standard input; the reader hears when to pause."""
        if self._input is None or self._input_ends:
            return
        self._waiting.append(memoryview(data))
        if len(self._waiting) == 1:
            self._writable()

    def feed_end(self) -> None:
        if self._input is None or self._input_ends:
            return
        if self._terminal:
            self.feed(b"\x04")  # the end of input, as typed
            return
        self._input_ends = True
        if not self._waiting:
            self._close_input()

    def _writable(self) -> None:
        assert self._input is not None
        while self._waiting:
            try:
                written = os.write(self._input, self._waiting[0])
            except BlockingIOError:
                self._loop.add_writer(self._input, self._writable)
                if self._reader is not None:
                    self._reader.want_input(False)
                return
            except OSError:  # it does not read any more: the rest is for nobody
                self._close_input()
                return
            rest = self._waiting[0][written:]
            if rest:
                self._waiting[0] = rest
            else:
                self._waiting.pop(0)
        self._loop.remove_writer(self._input)
        if self._input_ends:
            self._close_input()
        elif self._reader is not None:
            self._reader.want_input(True)

    def _close_input(self) -> None:
        fd, self._input = self._input, None
        self._waiting.clear()
        if fd is not None:
            self._loop.remove_writer(fd)
            if fd not in self._outputs.values():
                os.close(fd)
        if self._reader is not None:
            self._reader.want_input(True)  # and drop it

    # --- its end

    def _has_ended(self) -> None:
        # All that it started has ended too, so the output has an end.
        if not self._outputs:
            self._all_read()

    async def signal(self, number: int) -> None:
        """Signal its process group: with a terminal, the one in the foreground."""
        group = 0
        if self._terminal and self._input is not None and not self.exited.done():
            with contextlib.suppress(OSError):
                group = os.tcgetpgrp(self._input)
        if group in (0, self.pid):
            await self._process.signal(number)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def resize(self, size: TerminalSize) -> None:
        if self._terminal and self._input is not None:
            _set_size(self._input, size)

    def detach(self, reader: Reader) -> None:
        """``reader`` has gone."""
        if self._reader is reader:
            self.let_go()

    def let_go(self) -> None:
        """Its reader has gone: hang up, or go on into a file."""
        self._reader = None
        if self.keep:
            self._alone = True
            self.flow(True)
            return
        self.hang_up()
        self.flow(True)  # into nothing: a full pipe must not keep it from its last steps
        if not self._terminal:
            self._close_input()

    def _open_file(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        for folder in (self._cwd, str(Path.home())):
            with contextlib.suppress(OSError):
                return os.open(Path(folder, f"gpu-run-{self.pid}.log"), flags, 0o600)
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def hang_up(self) -> None:
        """As when a terminal is closed: HUP, and KILL for what is still there after 3 s."""
        if not self.exited.done():
            task = self._loop.create_task(self._hang_up())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hang_up(self) -> None:
        await self.signal(signal.SIGHUP)
        for number in (signal.SIGHUP, signal.SIGCONT):
            await self._process.signal(number)
        await asyncio.wait([self.exited], timeout=HANG_UP_SECONDS)
        await self._process.kill()

    async def terminate(self) -> None:
        """The worker ends: ask it to end too, in the way that a shell understands as well."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
            await self._process.signal(number)

    async def kill(self) -> None:
        """End it with its children, and wait until it is gone. Idempotent."""
        await self._process.kill()


async def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    terminal: TerminalKind | None = None,
    keep: bool = False,
) -> Program:
    """Start a program in a session of its own. Raises InvalidOption with the reason."""
    check_folder(cwd)
    if terminal is not None:
        master, slave = os.openpty()
        _set_size(master, terminal)
        env = {**env, "TERM": terminal.kind}
        theirs, stdin, outputs = (slave, slave, slave), master, {STDOUT: master}
    else:
        pipes = [os.pipe() for _ in range(3)]
        theirs, stdin = (pipes[0][0], pipes[1][1], pipes[2][1]), pipes[0][1]
        outputs = {STDOUT: pipes[1][0], STDERR: pipes[2][0]}
    try:
        process = await start_process(argv, env=env, cwd=cwd, files=theirs, terminal=terminal is not None)
    except BaseException as error:
        for fd in {stdin, *outputs.values()}:
            os.close(fd)
        if isinstance(error, OSError | ValueError):
            raise cannot_start(argv[0], error) from error
        raise
    finally:
        for fd in set(theirs):
            os.close(fd)
    return Program(process, stdin, outputs, cwd=cwd, keep=keep, terminal=terminal is not None)


def check_folder(cwd: str) -> None:
    """Raises InvalidOption for a folder that is not there."""
    if not os.path.isabs(cwd) or not os.path.isdir(cwd):
        raise InvalidOption(
            f"The folder {cwd} does not exist on the worker.", hint="Start it from a folder in your home."
        )
    if not os.access(cwd, os.X_OK):
        raise InvalidOption(f"The folder {cwd} cannot be entered on the worker.")


def cannot_start(program: str, error: Exception) -> InvalidOption:
    """Return the refusal that says why ``program`` cannot be started.

    Its detail ``exit_status`` is what a shell would answer: 127 not found, 126 cannot be run.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return InvalidOption(
            f"The program {program} was not found on the worker.", hint="Check its name.", exit_status=127
        )
    if number == errno.E2BIG:
        return InvalidOption("The arguments and the environment are too large.", hint="Pass less, or a file.")
    if number == errno.ENOEXEC:
        return InvalidOption(
            f"{program} is not a program that can be run.",
            hint="A script needs a first line such as #!/bin/sh.",
            exit_status=126,
        )
    reason = os.strerror(number) if number else str(error)
    return InvalidOption(f"{program} cannot be started on the worker: {reason}.", exit_status=126)


def _set_size(fd: int, size: TerminalSize) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
