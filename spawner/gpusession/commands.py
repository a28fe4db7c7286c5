"""Programs of this server's terminals that run on the GPU: ``gpu run`` and ``gpu shell``.

Exists so that a command has a lease while it needs one and not a second longer. Promises: a
command that waits or runs is in `Session.commands`, so that the server is not idle and the lease
stays; the lease that it asked for goes back afterwards unless something else uses it; a terminal
that goes away takes its command with it (unless ``keep``); when the lease ends, the person is
told at once, the program may go on until shortly before the deadline, and then it is hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gpulease import errors
from gpulease.models import Lease
from gpulease.session import CommandStatus, MoveStep
from gpulease.states import LeaseState
from gpusession.kernels.ports import LINK_LOST, RemoteCommand, Terminal, WorkerLink
from gpusession.notices import WHY
from gpusession.session import Session

log = logging.getLogger(__name__)

HANG_UP_BEFORE_SECONDS = 8.0
"""How long before the deadline a program is hung up: its last chance to write something down."""
KILL_AFTER_SECONDS = 3.0
"""A program that goes on after its hang-up is killed."""
SAY_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Order:
    """What a terminal asks for."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    terminal: Terminal | None = None
    pool: str | None = None
    gpus: int = 1
    keep: bool = False
    """It goes on when its terminal goes away or the connection is cut."""

    @property
    def line(self) -> str:
        return shlex.join(self.argv)

    @property
    def interactive(self) -> bool:
        """A shell or an interpreter that a person types into."""
        return self.terminal is not None and len(self.argv) == 1


class Caller(Protocol):
    """The terminal's side of one command."""

    async def waiting(self, step: MoveStep, message: str) -> None: ...
    async def started(self, lease: Lease) -> None: ...
    async def output(self, stream: Literal["stdout", "stderr"], data: bytes) -> None:
        """Waits while the terminal does not read. Raises ConnectionError when it is gone."""

    async def notice(self, message: str) -> None: ...


@dataclass
class Running:
    """One command, from its asking to its end."""

    id: str
    order: Order
    remote: RemoteCommand | None = None
    hung_up: str = ""
    """Why it was hung up; "": it was not."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    delivering: int = 0
    """Outputs that were read there and that the terminal has not taken yet."""
    delivered: int = 0


class Commands:
    """See the module. All methods run on the session's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._running: dict[str, Running] = {}
        session.empty_first(self.make_room)

    async def run(self, order: Order, caller: Caller, ready: asyncio.Future[Running]) -> int:
        """Run it from end to end; returns its exit status as a shell would have it.

        ``ready`` gets the command once it has started. Cancelling calls off the wait or ends the
        program. Raises errors of gpulease before the start (LimitReached, LeaseOver, LinkLost …)
        and LinkLost afterwards.
        """
        running = Running(self._session.make_id(), order)
        self._running[running.id] = running
        shown = CommandStatus(id=running.id, command=order.line, started_at=self._session.now())
        self._session.add_command(shown, at_work=not order.interactive)
        try:
            lease, link = await self._lease(order, caller)
            remote = running.remote = await _start(link, order)
            try:
                ready.set_result(running)
                await caller.started(lease)
                status = await self._attend(running, remote, caller)
                if running.hung_up:
                    await caller.notice(f"The program was hung up, because {running.hung_up}.")
                return status
            finally:
                if not remote.exited.done():
                    await asyncio.shield(end(remote))
        finally:
            running.over.set()
            del self._running[running.id]
            self._session.drop_command(running.id)

    async def _lease(self, order: Order, caller: Caller) -> tuple[Lease, WorkerLink]:
        news: asyncio.Queue[tuple[MoveStep, str]] = asyncio.Queue()
        work = asyncio.ensure_future(
            self._session.lending.borrow(
                order.pool, order.gpus, lambda step, text: news.put_nowait((step, text))
            )
        )
        try:
            last: tuple[MoveStep, str] = ("waiting", "Asking for a GPU.")
            while not work.done():
                await caller.waiting(*last)
                read = asyncio.ensure_future(news.get())
                await asyncio.wait(
                    {work, read}, timeout=SAY_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if read.done():
                    last = read.result()
                else:
                    read.cancel()
            return work.result()
        finally:
            work.cancel()

    async def _attend(self, running: Running, remote: RemoteCommand, caller: Caller) -> int:
        warner = asyncio.create_task(self._warn(caller))
        pumps = [asyncio.create_task(self._pump(running, remote, caller, "stdout"))]
        if running.order.terminal is None:
            pumps.append(asyncio.create_task(self._pump(running, remote, caller, "stderr")))
        try:
            status = await asyncio.shield(remote.exited)
            if status == LINK_LOST:
                raise errors.LinkLost(
                    "The GPU was lost: its worker ended or cannot be reached. The program has ended with it.",
                    hint="Start it again with `gpu run`.",
                )
            await self._read_out(running, pumps)
            return 128 - status if status < 0 else status
        finally:
            for task in (warner, *pumps):
                task.cancel()
            await asyncio.gather(warner, *pumps, return_exceptions=True)

    async def _read_out(self, running: Running, pumps: list[asyncio.Task[None]]) -> None:
        """Read what was written before the end, however slow the terminal is.

        A grandchild that still holds the pipe and writes nothing must not keep the terminal.
        """
        pending = set(pumps)
        while pending:
            before = running.delivered
            _, pending = await asyncio.wait(pending, timeout=KILL_AFTER_SECONDS)
            if not running.delivering and running.delivered == before:
                return

    async def _pump(
        self,
        running: Running,
        remote: RemoteCommand,
        caller: Caller,
        stream: Literal["stdout", "stderr"],
    ) -> None:
        reading = True
        while data := await remote.read(stream):
            if not reading:
                continue
            running.delivering += 1
            try:
                await caller.output(stream, data)
                running.delivered += len(data)
            except ConnectionError:
                reading = False
            finally:
                running.delivering -= 1
            if not reading:
                await self.left(running)

    async def _warn(self, caller: Caller) -> None:
        """Tell the person what the lease's warnings and its end mean for the command."""
        keeper, said = self._session.keeper, ""
        while True:
            lease, message = keeper.lease, ""
            if lease is not None and lease.state is LeaseState.ENDING and lease.ending is not None:
                until = lease.ending.deadline.astimezone().strftime("%H:%M:%S")
                why = WHY[lease.ending.reason]
                message = f"The GPU is being taken back, because {why}. This program is hung up at {until}."
            elif lease is not None and lease.warning is not None:
                at = lease.warning.at.astimezone().strftime("%H:%M:%S")
                message = f"{lease.warning.message} The GPU is taken back at {at}."
                if lease.warning.keep.times_left:
                    message += " To keep it: `gpu keep` in another terminal."
            if message and message != said:
                await caller.notice(message)
            said = message
            await keeper.changed()

    # --- endings

    async def make_room(self, lease: Lease) -> None:
        """The lease ends: let programs go on until shortly before the deadline, then hang them up."""
        waiting = [asyncio.ensure_future(one.over.wait()) for one in self._running.values()]
        if not waiting:
            return
        deadline = lease.ending.deadline if lease.ending else self._session.now()
        patience = (deadline - self._session.now()).total_seconds() - HANG_UP_BEFORE_SECONDS
        _, left = await asyncio.wait(waiting, timeout=max(0.0, patience))
        if left:
            why = WHY[lease.ending.reason] if lease.ending else "the server stopped"
            await asyncio.gather(*(self._hang_up(one, why) for one in list(self._running.values())))
            await asyncio.wait(waiting, timeout=1.0)
        for task in waiting:
            task.cancel()

    async def hang_up(self, command_id: str) -> None:
        """A person ends a command from elsewhere. Raises NotFound."""
        running = self._running.get(command_id)
        if running is None:
            raise errors.NotFound("This command does not run any more.")
        await self._hang_up(running, "it was ended by `gpu off --now`")

    async def left(self, running: Running) -> None:
        """Its terminal went away: the program goes with it, or on alone (``keep``)."""
        if running.remote is None:
            return
        if running.order.keep:
            running.remote.detach()
        else:
            await end(running.remote)

    async def hang_up_all(self, why: str) -> None:
        await asyncio.gather(*(self._hang_up(one, why) for one in list(self._running.values())))

    async def _hang_up(self, running: Running, why: str) -> None:
        running.hung_up = why
        if running.remote is not None:
            await end(running.remote)


async def _start(link: WorkerLink, order: Order) -> RemoteCommand:
    work = asyncio.ensure_future(
        link.run(list(order.argv), env=order.env, cwd=order.cwd, terminal=order.terminal, keep=order.keep)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(errors.GpuhubError, OSError):
            await end(await work)
        raise


async def end(remote: RemoteCommand) -> None:
    """Hang the program up, and kill what goes on after that."""
    with contextlib.suppress(errors.GpuhubError, OSError):
        await remote.signal(signal.SIGHUP)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(remote.exited), KILL_AFTER_SECONDS)
            return
        await remote.kill()


def order_from(body: Mapping[str, Any]) -> Order:
    """Read an order off the wire. Raises BadRequest."""
    known = {"argv", "env", "cwd", "terminal", "pool", "gpus", "keep"}
    argv, env, cwd = body.get("argv"), body.get("env", {}), body.get("cwd", "")
    terminal, pool, gpus = body.get("terminal"), body.get("pool"), body.get("gpus", 1)
    sound = (
        set(body) <= known
        and isinstance(argv, list)
        and argv
        and all(isinstance(word, str) and "\0" not in word for word in argv)
        and isinstance(env, dict)
        and all(_variable(name, value) for name, value in env.items())
        and isinstance(cwd, str)
        and cwd.startswith("/")
        and (pool is None or isinstance(pool, str))
        and isinstance(gpus, int)
        and isinstance(body.get("keep", False), bool)
    )
    if not sound or not isinstance(argv, list):
        raise errors.BadRequest("The order of a command cannot be understood.")
    return Order(
        argv=argv,
        env=env,
        cwd=cwd,
        terminal=None if terminal is None else terminal_from(terminal),
        pool=pool,
        gpus=gpus,
        keep=bool(body.get("keep", False)),
    )


def terminal_from(raw: Any) -> Terminal:
    """Raises BadRequest."""
    try:
        columns, rows = (max(1, min(int(raw[name]), 10_000)) for name in ("columns", "rows"))
        return Terminal(str(raw.get("kind") or "xterm-256color"), columns, rows)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise errors.BadRequest("The size of a terminal cannot be understood.") from None


def _variable(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and bool(name)
        and "=" not in name
        and "\0" not in name + value
    )
