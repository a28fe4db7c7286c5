"""One running command over the server's private socket: ``POST commands`` with an upgrade.

Exists to join a terminal's frames (`gpusession.shell.frames`) to `gpusession.commands`. Promises:
signals and sizes overtake input that the program does not read; neither side holds more than a
window of the other's bytes; a terminal that goes away ends its command, unless it asked to keep it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Literal

from tornado.iostream import IOStream, StreamClosedError

from gpulease import errors
from gpulease.models import Lease
from gpulease.session import MoveStep
from gpusession.api import Resource
from gpusession.commands import Commands, Running, order_from, terminal_from
from gpusession.shell import frames

log = logging.getLogger(__name__)

SWITCHING = (
    f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {frames.PROTOCOL}\r\n\r\n"
).encode()
BEGIN_SECONDS = 10.0
CANCELLED = "cancelled"


class Terminal:
    """`gpusession.commands.Caller` over frames."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self._turn = asyncio.Lock()

    async def send(self, kind: int, body: bytes | dict[str, Any] = b"") -> None:
        """Raises ConnectionError when the terminal is gone."""
        try:
            async with self._turn:
                await self._stream.write(frames.pack(kind, body))
        except StreamClosedError as error:
            raise ConnectionError("the terminal is gone") from error

    async def receive(self) -> tuple[int, bytes]:
        """Raises ConnectionError, BrokenFrame."""
        try:
            kind, length = frames.head(await self._stream.read_bytes(frames.HEAD.size))
            return kind, await self._stream.read_bytes(length) if length else b""
        except StreamClosedError as error:
            raise ConnectionError("the terminal is gone") from error

    async def waiting(self, step: MoveStep, message: str) -> None:
        await self.send(frames.WAITING, {"step": step, "message": message})

    async def started(self, lease: Lease) -> None:
        await self.send(frames.STARTED, {"lease": lease.model_dump(mode="json", exclude={"link"})})

    async def output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        kind = frames.STDOUT if stream == "stdout" else frames.STDERR
        for start in range(0, len(data), frames.CHUNK_BYTES):
            await self.send(kind, data[start : start + frames.CHUNK_BYTES])

    async def notice(self, message: str) -> None:
        with contextlib.suppress(ConnectionError):
            await self.send(frames.NOTICE, {"message": message})


class CommandsResource(Resource):
    """Registered on the private socket only: its HTTP connection becomes a stream of frames."""

    def initialize(self, session: Any, activity: Any, commands: Commands | None = None) -> None:
        super().initialize(session, activity)
        assert commands is not None
        self._commands = commands

    async def post(self) -> None:
        if self.request.headers.get("Upgrade") != frames.PROTOCOL:
            self.refuse(errors.BadRequest(f"Ask for an upgrade to {frames.PROTOCOL}."))
            return
        stream = self.detach()
        try:
            await stream.write(SWITCHING)
            await attend(self._commands, Terminal(stream))
        except StreamClosedError:
            log.debug("a terminal left before it asked for anything")
        finally:
            stream.close()


class CommandResource(Resource):
    """``DELETE commands/{id}`` hangs a command up."""

    def initialize(self, session: Any, activity: Any, commands: Commands | None = None) -> None:
        super().initialize(session, activity)
        assert commands is not None
        self._commands = commands

    async def delete(self, command_id: str) -> None:
        try:
            await self.session.call(self._commands.hang_up(command_id))
            self.answer(None)
        except errors.GpuhubError as error:
            self.refuse(error)


async def attend(commands: Commands, terminal: Terminal) -> None:
    """Serve one terminal until its command is over."""
    try:
        kind, body = await asyncio.wait_for(terminal.receive(), BEGIN_SECONDS)
        if kind != frames.BEGIN:
            raise errors.BadRequest("The first frame must say what to run.")
        order = order_from(frames.read_json(body))
    except (ConnectionError, TimeoutError):
        return
    except (errors.BadRequest, frames.BrokenFrame) as error:
        refusal = error if isinstance(error, errors.GpuhubError) else errors.BadRequest(str(error))
        await _last(terminal, frames.FAILED, {**refusal.as_dict(), "started": False})
        return
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(commands.run(order, terminal, ready), name="command")
    ear = asyncio.create_task(_listen(commands, terminal, ready, running), name="terminal")
    try:
        try:
            status = await running
            await _last(terminal, frames.EXIT, {"status": status})
        except errors.GpuhubError as error:
            await _last(terminal, frames.FAILED, {**error.as_dict(), "started": ready.done()})
        except ConnectionError:
            log.info("the terminal of %r went away before it ran", order.line)
        except asyncio.CancelledError:
            if not running.done():
                running.cancel()
                raise
            gone = {"code": CANCELLED, "message": "You are no longer in line.", "hint": "", "details": {}}
            await _last(terminal, frames.FAILED, {**gone, "started": ready.done()})
    finally:
        ear.cancel()
        ready.cancel()
        await asyncio.gather(ear, return_exceptions=True)


async def _last(terminal: Terminal, kind: int, body: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):
        await terminal.send(kind, body)


async def _listen(
    commands: Commands, terminal: Terminal, ready: asyncio.Future[Running], command: asyncio.Task[int]
) -> None:
    """Take what the terminal sends: input goes through a queue of its own, the rest at once."""
    intake = _Intake()
    feeder = asyncio.create_task(_feed(terminal, ready, intake))
    try:
        while True:
            kind, body = await terminal.receive()
            if kind == frames.INPUT:
                intake.held_bytes += len(body)
                if intake.held_bytes > frames.WINDOW_BYTES:
                    raise frames.BrokenFrame("more input than there was credit for")
                intake.queue.put_nowait(body)
            elif kind == frames.INPUT_END:
                intake.queue.put_nowait(None)
            elif ready.done():
                await _do(ready.result(), kind, body)
            elif kind in (frames.SIGNAL, frames.KILL):
                command.cancel()
                return
    except (ConnectionError, frames.BrokenFrame, errors.BadRequest) as error:
        log.info("a terminal left its command: %s", error)
        if ready.done():
            await commands.left(ready.result())
        else:
            command.cancel()
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


class _Intake:
    """Input that the program has not taken yet; None ends it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.held_bytes = 0


async def _feed(terminal: Terminal, ready: asyncio.Future[Running], intake: _Intake) -> None:
    remote = (await asyncio.shield(ready)).remote
    assert remote is not None
    reads = True
    with contextlib.suppress(ConnectionError):
        while True:
            data = await intake.queue.get()
            try:
                if data is None:
                    await remote.write_eof()
                elif reads:
                    await remote.write(data)
            except (errors.GpuhubError, OSError):
                reads = False  # it closed its input, or has ended: what comes after is nobody's
            if data:
                intake.held_bytes -= len(data)
                await terminal.send(frames.CREDIT, {"bytes": len(data)})


async def _do(running: Running, kind: int, body: bytes) -> None:
    remote = running.remote
    assert remote is not None
    if kind == frames.RESIZE:
        size = terminal_from(frames.read_json(body))
        remote.resize(size.columns, size.rows)
    elif kind == frames.SIGNAL:
        number = frames.read_json(body).get("number")
        if not isinstance(number, int) or not 1 <= number <= 64:
            raise frames.BrokenFrame("no such signal")
        with contextlib.suppress(errors.GpuhubError, OSError):
            await remote.signal(number)
    elif kind == frames.KILL:
        with contextlib.suppress(errors.GpuhubError, OSError):
            await remote.kill()
    else:
        raise frames.BrokenFrame(f"frames of kind {kind} are not known")
