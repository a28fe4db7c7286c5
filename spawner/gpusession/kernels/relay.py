"""A kernel's address for its whole life, and the process that answers behind it.

Exists to give the session's loop a calm view (`ports.Endpoint`) of what the relay's thread does.
Promises: nothing here waits for a socket or for the thread's work without giving the loop away; a
process that ends is noticed at once, and what clients send from then on waits for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import zmq

from gpulease import errors
from gpusession.kernels.admission import MOVE, START, WORKER
from gpusession.kernels.ports import Progress, RunningKernel
from gpusession.kernels.sockets import Address, Back
from gpusession.kernels.switchboard import CELL_WAITS, SHUTDOWN_ASKED, WORK, Switchboard
from gpusession.kernels.wire import Wire

T = TypeVar("T")

BUDGET_BYTES = 64 * 1024 * 1024
"""Output that may wait for slow readers, for each kernel."""


class Relay:
    """The `ports.Endpoint` of one kernel. Made anywhere; its coroutines run on the session's loop."""

    def __init__(
        self,
        kernel_id: str,
        address: Address,
        key: bytes,
        *,
        make_id: Callable[[], str],
        context: zmq.Context[Any] | None = None,
        budget_bytes: int = BUDGET_BYTES,
        has_agent: bool = True,
        alone: bool = False,
    ) -> None:
        """Bind the address. Raises zmq.ZMQError.

        ``has_agent``: its processes are ours; others need not answer on the control channel.
        ``alone``: no other account reaches this machine's loopback.
        """
        self.kernel_id = kernel_id
        self.has_agent = has_agent
        self.running: RunningKernel | None = None
        self.lost_at: float | None = None
        """When the process that answers ended (`time.monotonic`); None: it lives."""
        self.on_switch: Callable[[RunningKernel], None] = lambda running: None
        self.on_waiting_cell: Callable[[], None] = lambda: None
        """Called on the session's loop when a cell waits for a GPU (see `cells_wait_for_gpu`)."""
        self.on_shutdown_asked: Callable[[], None] = lambda: None
        """Called on the session's loop when a client asks the kernel to end: its end is no crash."""
        self.on_work: Callable[[], None] = lambda: None
        self._backs: dict[RunningKernel, Back] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_context: zmq.Context[Any] | None = None
        if context is None:
            context = self._own_context = zmq.Context()
        wire = Wire(key, make_id(), make_id)
        try:
            self._board = Switchboard(
                kernel_id,
                context,
                address,
                wire,
                budget_bytes=budget_bytes,
                may_debug=has_agent or alone,
                told=self._told,
            )
        except BaseException:
            if self._own_context is not None:
                self._own_context.term()
            raise
        self._board.queue.holds.add(START)
        self.ports = dict(self._board.front.ports)
        self._board.start()

    # --- what is

    @property
    def in_flight(self) -> str | None:
        return self._board.in_flight

    @property
    def waits_for_input(self) -> bool:
        return self._board.waits_for_input

    @property
    def succeeded(self) -> int:
        return self._board.queue.succeeded

    @property
    def finished(self) -> int:
        return self._board.queue.finished

    @property
    def waiting(self) -> int:
        return len(self._board.queue.waiting)

    @property
    def agent(self) -> RelayAgent:
        return RelayAgent(self, None)

    # --- candidates

    async def prove(self, candidate: RunningKernel, timeout_seconds: float) -> RelayAgent:
        board = self._board
        proven: Future[None] = Future()

        def connect() -> Back:
            return board.candidates.connect(
                candidate.channels, lambda: proven.set_result(None), with_control=self.has_agent
            )

        back = await self._do(connect)
        self._backs[candidate] = back
        answered: asyncio.Future[Any] = asyncio.wrap_future(proven)
        ends: set[asyncio.Future[Any]] = {answered, candidate.exited}
        try:
            await asyncio.wait(ends, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if candidate.exited.done():
                raise errors.Unavailable("The notebook's new kernel ended while it started.")
            if not answered.done():
                raise TimeoutError
        except BaseException:
            await asyncio.shield(self.discard(candidate))
            raise
        finally:
            answered.cancel()
        return RelayAgent(self, back)

    async def discard(self, candidate: RunningKernel) -> None:
        back = self._backs.pop(candidate, None)
        if back is not None and candidate is not self.running:
            with contextlib.suppress(errors.Unavailable):
                await self._do(lambda: self._board.candidates.discard(back))

    async def switch(self, candidate: RunningKernel, *, anew: bool = False) -> RunningKernel | None:
        """``anew``: say to clients that the kernel has been started anew."""
        back = self._backs.get(candidate)
        if back is None:
            raise errors.Unavailable("The notebook's new kernel is not connected.")
        await self._do(lambda: self._board.switch(back, anew=anew))
        old, self.running, self.lost_at = self.running, candidate, None
        if old is not None and old is not candidate:
            self._backs.pop(old, None)
        candidate.exited.add_done_callback(lambda _status: self._lost(candidate, back))
        self.on_switch(candidate)
        return old

    def _lost(self, process: RunningKernel, back: Back) -> None:
        if process is self.running:
            self.lost_at = time.monotonic()
            self._board.call(lambda: self._board.lose(back))

    # --- holding

    async def hold(self) -> None:
        await self._do(lambda: self._board.queue.holds.add(MOVE))

    async def drain(self, timeout_seconds: float | None = None) -> None:
        landed = await self._do(self._board.landed)
        await asyncio.wait_for(asyncio.wrap_future(landed), timeout_seconds)

    async def release(self) -> None:
        with contextlib.suppress(errors.Unavailable):
            await self._do(lambda: self._board.queue.holds.discard(MOVE))

    async def hold_start(self) -> None:
        """Until `started`, everything waits: another process is being started."""
        await self._do(lambda: self._board.queue.holds.add(START))

    async def started(self) -> None:
        await self._do(lambda: self._board.queue.holds.discard(START))

    def cells_wait_for_gpu(self, wait: bool) -> None:
        """Hold cells (and nothing else) until the kernel runs on a GPU. In effect before later calls."""
        holds = self._board.queue.holds
        self._board.call(lambda: holds.add(WORKER) if wait else holds.discard(WORKER))

    def _told(self, event: str) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._heard, event)

    def _heard(self, event: str) -> None:
        heard = {CELL_WAITS: self.on_waiting_cell, SHUTDOWN_ASKED: self.on_shutdown_asked, WORK: self.on_work}
        heard[event]()

    # --- answers and interrupts

    async def fail_in_flight(self, ename: str, evalue: str) -> str | None:
        return await self._do(lambda: self._board.fail_flying(ename, evalue))

    async def abort_held(self) -> int:
        return await self._do(self._board.answering.abort_waiting)

    async def fail_waiting(self, ename: str, evalue: str) -> None:
        """The first waiting cell fails with this error, the others are aborted."""
        await self._do(lambda: self._board.answering.fail_waiting(ename, evalue))

    async def abandon(self) -> None:
        """The person restarts or ends the kernel: everything asked of it is answered ``aborted``."""
        await self._do(self._board.abandon)

    def say(self, text: str, name: str = "stderr") -> None:
        """Write a line under the cell that runs or waits; kept until there is one. Before later calls."""
        self._board.call(lambda: self._board.answering.say(text, name))

    async def interrupt(self) -> None:
        """A person interrupts; what our own agent does at the moment is not hit."""
        if not await self._do(self._board.interrupted) and self.running is not None:
            await self.running.signal(signal.SIGINT)

    # --- its own life

    async def bind_again(self) -> None:
        """Make sockets' files anew that somebody removed."""
        await self._do(self._board.front.bind_again)

    async def close(self) -> None:
        """Free the address. Idempotent. Ending processes is the caller's business."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, waiting for the thread (milliseconds)."""
        self._board.close()
        if self._own_context is not None:
            self._own_context.term()

    async def _do(self, work: Callable[[], T]) -> T:
        self._loop = asyncio.get_running_loop()
        return await asyncio.wrap_future(self._board.call(work))


class RelayAgent:
    """The `ports.Agent` of one process behind the relay; of the present one without ``back``."""

    def __init__(self, relay: Relay, back: Back | None) -> None:
        self._relay, self._back = relay, back

    async def request(
        self,
        op: str,
        content: Mapping[str, Any] | None = None,
        *,
        channel: str = "shell",
        timeout_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        board, loop = self._relay._board, asyncio.get_running_loop()  # the two are one part

        def told(done: int, total: int | None) -> None:
            if progress is not None and not loop.is_closed():
                loop.call_soon_threadsafe(progress, done, total)

        body = {**(content or {}), "op": op}
        msg_id, reply = await self._relay._do(
            lambda: board.send_own("gpuhub_request", body, channel, told, self._back)
        )
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(reply), timeout_seconds)
        except (TimeoutError, asyncio.CancelledError):
            board.call(lambda: board.drop_own(msg_id))
            raise
        return {name: value for name, value in answer.items() if name != "status"}
