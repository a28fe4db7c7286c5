"""What runs on the worker, as the server sees it: a kernel, a program.

Promises: `exited` is done at the worker's word, or with `LINK_LOST` when nobody can tell any more;
after that nothing raises: what has ended cannot be signalled, and that is fine.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import asyncssh

from gpulease import errors
from gpulease.session import Placement
from gpusession.kernels.ports import CHANNELS

CHUNK_BYTES = 256 * 1024


class Conversation(Protocol):
    """What is needed of the connection."""

    async def ask(self, op: str, **content: Any) -> dict[str, Any]: ...
    def tell(self, op: str, **content: Any) -> None: ...


class _Far:
    def __init__(self, conversation: Conversation, target: str, pid: int | None) -> None:
        self._conversation = conversation
        self.target, self.pid = target, pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ended(self, status: int) -> None:
        """The worker's word, or the connection's."""
        if not self.exited.done():
            self.exited.set_result(status)

    async def signal(self, signum: int) -> None:
        await self._order("signal", number=int(signum))

    async def kill(self) -> None:
        """End it now, with its children, and wait until it is gone. Idempotent."""
        await self._order("kill")
        if not self.exited.done():
            await asyncio.wait([self.exited])

    async def _order(self, op: str, **content: Any) -> None:
        if not self.exited.done():
            with contextlib.suppress(errors.NotFound, errors.LinkLost):
                await self._conversation.ask(op, target=self.target, **content)


class FarKernel(_Far):
    """A `RunningKernel` on the worker."""

    placement: Placement = "worker"

    def __init__(self, conversation: Conversation, shown: Mapping[str, Any], folder: Path) -> None:
        super().__init__(conversation, str(shown["target"]), int(shown["pid"]))
        self.kernel_id = str(shown["kernel"])
        self.parked = bool(shown["parked"])
        self._folder = folder
        self.channels = {channel: f"ipc://{self.path(channel)}" for channel in CHANNELS}
        self.listeners: list[asyncssh.SSHListener] = []

    def path(self, channel: str) -> Path:
        """Where this channel's socket is here."""
        return self._folder / f"{self.target}-{channel}"

    async def signal(self, signum: int) -> None:
        await super().signal(signum)
        if signum in (signal.SIGSTOP, signal.SIGCONT):
            self.parked = signum == signal.SIGSTOP

    def ended(self, status: int) -> None:
        super().ended(status)
        for listener in self.listeners:
            listener.close()
        for channel in self.channels:
            self.path(channel).unlink(missing_ok=True)


class FarProgram(_Far):
    """A `RemoteCommand`. Both outputs share one window: read both, or one may stop the other."""

    def __init__(self, conversation: Conversation, target: str, pid: int, terminal: bool) -> None:
        super().__init__(conversation, target, pid)
        self._stdin: asyncssh.SSHWriter[bytes] | None = None
        self._outputs: dict[str, asyncssh.SSHReader[bytes]] = {}
        self._open = {"stdout"} if terminal else {"stdout", "stderr"}

    def attached(
        self,
        stdin: asyncssh.SSHWriter[bytes],
        stdout: asyncssh.SSHReader[bytes],
        stderr: asyncssh.SSHReader[bytes],
    ) -> None:
        self._stdin, self._outputs = stdin, {"stdout": stdout, "stderr": stderr}

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while it does not read. What nobody reads any more is dropped."""
        if self._stdin is None:
            return
        with contextlib.suppress(OSError, asyncssh.Error):
            view = memoryview(data)
            for begin in range(0, len(view), CHUNK_BYTES):
                self._stdin.write(bytes(view[begin : begin + CHUNK_BYTES]))
                await self._stdin.drain()

    async def write_eof(self) -> None:
        if self._stdin is not None:
            with contextlib.suppress(OSError, asyncssh.Error):
                self._stdin.write_eof()

    async def read(self, stream: Literal["stdout", "stderr"]) -> bytes:
        """Return what came, at least one byte; b"" at the end. With a terminal all is stdout."""
        data = b""
        if stream in self._open:
            with contextlib.suppress(OSError, asyncssh.Error):
                data = await self._outputs[stream].read(CHUNK_BYTES)
            if not data:
                self._open.discard(stream)
                if not self._open:
                    # Not before its end: it may have closed its outputs and still run.
                    self.exited.add_done_callback(lambda _status: self._close())
        return data

    def _close(self) -> None:
        if self._stdin is not None:
            self._stdin.channel.close()

    def resize(self, columns: int, rows: int) -> None:
        size = {"columns": max(1, min(columns, 65535)), "rows": max(1, min(rows, 65535))}
        self._conversation.tell("resize", target=self.target, size=size)

    async def kill(self) -> None:
        await super().kill()
        self._close()

    def detach(self) -> None:
        """See `RemoteCommand.detach`."""
        self._open.clear()
        self._close()
