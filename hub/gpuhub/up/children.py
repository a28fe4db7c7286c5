"""A child process of `gpuhub up`: started, watched, started again when it falls over.

Promises: no child outlives `gpuhub up`, not even its ``kill -9`` (the kernel sends the child SIGTERM);
a child that falls over at once is started again ever more slowly; Ctrl-C reaches `gpuhub up` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpuhub.up.readable import Log

PR_SET_PDEATHSIG = 1
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
CALM_SECONDS = 60.0
"""A child that lived so long was healthy: its next fall is its first."""
END_SECONDS = 10.0
TAIL_LINES = 30


@dataclass(frozen=True)
class ChildOrder:
    """What to run. ``account``: (uid, gid, groups) to change to; None: as we are."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    cwd: Path
    account: tuple[int, int, tuple[int, ...]] | None = None


def pauses() -> Callable[[float], float]:
    """Return a function from seconds lived to seconds of pause before the next start."""
    pause = 0.0

    def next_pause(lived_seconds: float) -> float:
        nonlocal pause
        if lived_seconds >= CALM_SECONDS or pause == 0.0:
            pause = FIRST_PAUSE_SECONDS
        else:
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        return pause

    return next_pause


class Child:
    """Keeps one order running until `end`."""

    def __init__(self, order: ChildOrder, log: Log, on_restart: Callable[[str], None] | None = None) -> None:
        self.order = order
        self.falls = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._log, self._on_restart = log, on_restart
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    @property
    def name(self) -> str:
        return self.order.name

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"child {self.name}")

    async def end(self) -> None:
        """SIGTERM, and SIGKILL for one that does not go."""
        self._ending = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), END_SECONDS)
            except TimeoutError:
                self._log.say(f"The {self.name} does not stop; it is ended.", "warning")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        next_pause = pauses()
        while not self._ending:
            started = loop.time()
            status = await self._run()
            if self._ending:
                return
            self.falls += 1
            pause = next_pause(loop.time() - started)
            self._log.say(f"The {self.name} {_how(status)}. It starts again in {pause:g} s.", "warning")
            await asyncio.sleep(pause)
            if self._on_restart is not None and not self._ending:
                self._on_restart(self.name)

    async def _run(self) -> int:
        order, parent = self.order, os.getpid()

        def in_child() -> None:
            # After the change of account, which would clear it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        uid, gid, groups = order.account or (None, None, None)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *order.command,
                env=order.env,
                cwd=order.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=in_child,
                user=uid,
                group=gid,
                extra_groups=groups,
                umask=0o077,
                limit=2**20,
            )
        except OSError as error:
            self._take(f"cannot be started: {error}")
            return 127
        assert self._process.stdout is not None
        await self._read(self._process.stdout)
        return await self._process.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: the reader has dropped it
                continue
            if not line:
                return
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        self.tail.append(line.rstrip())
        self._log.child(self.name, line)


def _how(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"stopped with status {status}"
