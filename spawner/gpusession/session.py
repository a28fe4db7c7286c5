"""Everything of one server's session, on one event loop in one thread.

Exists so that a blocked Jupyter server never blocks a move, and a move never blocks the Jupyter
server: `Session.call` is the only bridge. Joins the lease keeper, the kernels, the places where
kernels run, recovery and endings, and tells subscribers what changed. Promises: what `status`
shows is what is; every public coroutine raises only errors of `gpulease.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpulease import errors
from gpulease.models import Acknowledge, KernelReturn, Lease, UsageSeries
from gpulease.session import (
    CommandStatus,
    KernelStatus,
    MoveStep,
    Status,
)
from gpulease.states import EndReason, LeaseState
from gpusession.autosave import Autosave, rules_of
from gpusession.broker import Broker
from gpusession.changes import Changes, Put
from gpusession.ending import Ending
from gpusession.kernel import Kernel
from gpusession.kernels.move import Done
from gpusession.kernels.ports import (
    LINK_LOST,
    Cause,
    Endpoint,
    KernelCommand,
    Place,
    RunningKernel,
)
from gpusession.lastsave import save_all
from gpusession.leases import Connect, KeyPair, LeaseKeeper
from gpusession.lending import Lending
from gpusession.notices import WHY, ended
from gpusession.ownloop import OwnLoop
from gpusession.restoring import Recovery
from gpusession.savedstates import SavedStates, Store
from gpusession.work import Work

log = logging.getLogger(__name__)

FENCE_MARGIN_SECONDS = 5.0
LINK_NEWS_SECONDS = 1.0
"""A kernel's end on the worker may be the worker's end: wait this long for the news of its link."""


@dataclass
class Parts:
    """What a session is put together from; tests put in others."""

    server: str
    user: str
    broker: Broker | None
    store: Store
    server_place: Place
    connect: Connect
    make_key: Callable[[], KeyPair]
    notebook_of: Callable[[str], Awaitable[str | None]]
    """The path of a kernel's notebook, relative to the server's root; called on the session's loop."""
    now: Callable[[], datetime]
    make_id: Callable[[], str]
    fence_seconds: float = 60.0
    alone: bool = False
    """No other account reaches this machine's loopback (see `KernelHost`)."""
    answer_seconds: float = 90.0
    """How long a GPU waits for the answer to "move without these variables?": a moment to read, no more."""
    cell_hint_seconds: float = 5.0
    """How often the broker hears that a cell still runs on the GPU, before it forgets."""
    save_look_seconds: float = 1.0
    """How often it is looked which kernels should be saved automatically."""
    cell_news_seconds: float = 1.0
    """A cell that is over sooner is no news."""


class Session(OwnLoop):
    """See the module. `start` before anything else; `KernelHost` for the provisioner."""

    def __init__(self, parts: Parts) -> None:
        super().__init__("gpuhub-session")
        self._parts = parts
        self.snapshots = parts.store.folder
        self.alone = parts.alone
        self.kernels: dict[str, Kernel] = {}
        self._leave_first: list[Callable[[Lease], Awaitable[None]]] = []
        self.commands: dict[str, CommandStatus] = {}
        self.last_activity = parts.now()
        self.states = SavedStates(parts.store, self.kernels, lambda: self._touch(""))
        self._stopping: set[str] = set()
        self._closing = False
        self._changes = Changes(self.status, self.spawn)

    # --- beginning and end

    async def begin(self) -> None:
        """Begin on the running loop; `start` does this in a thread of its own."""
        await super().begin()
        self._build()
        self.spawn(self.keeper.run(), "follow")
        self.spawn(self.states.measure(), "measure")
        self.spawn(self._autosave.follow(), "autosave")

    async def finish(self) -> None:
        """End all that was begun. Kernels are not ended by this."""
        await super().finish()
        await self.keeper.close()

    def _build(self) -> None:
        parts = self._parts
        self.keeper = LeaseKeeper(
            parts.broker,
            parts.server,
            make_key=parts.make_key,
            connect=parts.connect,
            make_id=parts.make_id,
            on_change=lambda: self._touch(""),
            on_usage=lambda data: self._changes.publish("usage", "", data),
            on_ending=self._lease_ends,
            on_ended=self._lease_ended,
        )
        self._autosave = Autosave(
            self.kernels,
            self.states,
            lambda: rules_of(self.keeper.policy),
            self.spawn,
            look_seconds=parts.save_look_seconds,
        )
        self._work = Work(
            self.kernels,
            touch=self._touch,
            hint=self.keeper.hint_cell,
            spawn=self.spawn,
            news_seconds=parts.cell_news_seconds,
            hint_seconds=parts.cell_hint_seconds,
        )
        self.lending = Lending(self.keeper, self._in_use, self.spawn)
        self._ending = Ending(
            lambda: list(self.kernels.values()), self.keeper.acknowledge, parts.now, self._leave_first
        )
        self._recovery = Recovery(self.states, self.server_place, self._fenced, parts.now, parts.make_id)

    # --- what kernels need (kernel.Surroundings)

    def now(self) -> datetime:
        return self._parts.now()

    def make_id(self) -> str:
        return self._parts.make_id()

    def server_place(self) -> Place:
        return self._parts.server_place

    async def notebook_of(self, kernel_id: str) -> str | None:
        return await self._parts.notebook_of(kernel_id)

    def lease_id(self) -> str | None:
        return self.keeper.lease.id if self.keeper.lease else None

    async def worker_place(self, pool: str | None, say: Callable[[MoveStep, str], None]) -> Place:
        """Wait for a lease and its link. Raises LimitReached, LeaseOver, LinkLost …"""
        return (await self.lending.borrow(pool, 1, say))[1].place

    def changed(self, kernel: Kernel) -> None:
        self._touch(kernel.id)

    def moved(self, kernel: Kernel, done: Done, asked: bool) -> None:
        if done.switched:
            self.spawn(self.states.measure(), "measure")
        if not asked:
            return
        shown = kernel.status().move
        if shown is not None and shown.step == "refused":
            # The person is asked what may stay behind: the GPU waits a moment for the answer.
            self.spawn(self._release_later(), "release")
        else:
            self.lending.release_if_unused()

    async def _release_later(self) -> None:
        await asyncio.sleep(self._parts.answer_seconds)
        self.lending.release_if_unused()

    def process_ended(self, kernel: Kernel, process: RunningKernel, status: int) -> None:
        if self._closing or kernel.id in self._stopping or kernel.id not in self.kernels:
            return
        kernel.recovering, kernel.exit_status = True, status
        self.spawn(self._process_ended(kernel, process, status), "recovery")

    async def _process_ended(self, kernel: Kernel, process: RunningKernel, status: int) -> None:
        log.warning("kernel %s ended with status %d on the %s", kernel.id, status, process.placement)
        link = self.keeper.link
        if status != LINK_LOST and process.placement == "worker" and link is not None:
            await asyncio.wait([link.lost], timeout=LINK_NEWS_SECONDS)
        gone = process.placement == "worker" and (link is None or link.lost.done())
        if status == LINK_LOST or gone:
            await self._recovery.worker_lost(kernel, self._loss())
            self._touch(kernel.id)
            return
        parked = kernel.take_parked() if not kernel.endpoint.succeeded else None
        if parked is not None:
            await self._recovery.back_to_parked(kernel, parked)
            return
        kernel.recovering = False  # Jupyter's restarter takes over: it asks place_for and tells launched
        await kernel.endpoint.fail_in_flight("KernelDied", ended(status))
        await kernel.endpoint.abort_held()

    def _loss(self) -> Callable[[], str]:
        """What the loss of a worker is told as. The broker sees its end and soon knows more than we do."""
        lease = self.keeper.lease

        def told() -> str:
            known = None if lease is None else self.keeper.latest(lease)
            if known is not None and known.state is LeaseState.ENDED and known.reason is EndReason.FAILED:
                return f"The GPU was lost. {known.message}"
            if known is not None and known.state is LeaseState.ENDING and known.reason is not None:
                why = WHY[known.reason]
                return f"The GPU was taken back before this notebook could be moved, because {why}."
            return "The GPU was lost: its worker ended or cannot be reached."

        return told

    async def _fenced(self) -> None:
        """Wait until nothing of ours can run on a lost worker: the broker saw its end, or time passed."""
        lease, loop = self.keeper.lease, asyncio.get_running_loop()
        until = loop.time() + self._parts.fence_seconds + FENCE_MARGIN_SECONDS
        while lease is not None and self.keeper.lease is not None and self.keeper.lease.id == lease.id:
            if (left := until - loop.time()) <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.keeper.changed(), left)

    # --- what the provisioner needs (kernels.ports.KernelHost)

    def place_for(self, kernel_id: str) -> Place:
        kernel = self.kernels.get(kernel_id)
        if kernel is not None and kernel.placement == "worker" and self.keeper.link is not None:
            return self.keeper.link.place
        return self._parts.server_place

    def settling(self, kernel_id: str) -> bool:
        kernel = self.kernels.get(kernel_id)
        return kernel is not None and (kernel.recovering or kernel.turn.locked())

    def stopping(self, kernel_id: str) -> None:
        self._stopping.add(kernel_id)

    async def launched(self, endpoint: Endpoint, command: KernelCommand, cause: Cause) -> None:
        kernel_id = command.kernel_id
        self._stopping.discard(kernel_id)
        kernel = self.kernels.get(kernel_id)
        if kernel is None:
            name = str(command.env.get("GPUHUB_KERNEL_NAME", "")) or command.language
            kernel = self.kernels[kernel_id] = Kernel(self, endpoint, command, name, None)
            self.spawn(self._offer(kernel), "offer")
        kernel.endpoint, kernel.command = endpoint, command
        endpoint.on_work = lambda: self._work.changed(kernel_id)
        self._work.changed(kernel_id)
        kernel.watch()
        kernel.begin_life(anew=cause != "crash")
        if cause == "crash":
            await self._recovery.after_crash(kernel)
        self._touch(kernel_id)

    async def _offer(self, kernel: Kernel) -> None:
        if await self.states.offer(kernel):
            self._touch(kernel.id)

    async def closed(self, kernel_id: str) -> None:
        kernel = self.kernels.get(kernel_id)
        if kernel is None:
            return
        self._stopping.add(kernel_id)
        await kernel.close()
        del self.kernels[kernel_id]
        self._work.changed(kernel_id)
        self._stopping.discard(kernel_id)
        if not self._closing:
            await self.states.settle_kernel(kernel_id)
            self.lending.release_if_unused()
        self._touch("")

    # --- the lease

    def _in_use(self) -> bool:
        return bool(self.commands) or any(kernel.wants_worker for kernel in self.kernels.values())

    def _lease_ends(self, lease: Lease) -> None:
        if not self._closing:
            unused = self.lending.gave_back(lease.id)
            self.spawn(self._ending.run(lease, unused=unused), "ending")

    def _lease_ended(self, lease: Lease) -> None:
        self.lending.stays(lease.id)

    async def gpu_on(self, pool: str | None, gpus: int = 1) -> Lease:
        """Ask for a lease without moving a kernel; it stays until it is released or taken."""
        lease = await self.keeper.want(pool, gpus)
        self.lending.stays(lease.id)
        return lease

    async def keep(self) -> Lease:
        return await self.keeper.keep()

    async def release(self) -> Lease:
        return await self.keeper.release()

    async def usage(self) -> UsageSeries:
        return await self.keeper.usage()

    # --- commands on the worker (gpusession.commands)

    def empty_first(self, leave: Callable[[Lease], Awaitable[None]]) -> None:
        """``leave`` is waited for, too, before the broker hears that an ending lease's worker is empty."""
        self._leave_first.append(leave)

    def add_command(self, command: CommandStatus, *, at_work: bool) -> None:
        """A command asks for the worker or runs there: the lease stays, the server is not idle.

        ``at_work``: as a running cell, it is not cut for a silent GPU; a prompt that waits is not at work.
        """
        self.commands[command.id] = command
        if at_work:
            self._work.begins(command.id)
        self.last_activity = self.now()
        self._touch("")

    def drop_command(self, command_id: str) -> None:
        self.commands.pop(command_id, None)
        self._work.ends(command_id)
        self.last_activity = self.now()
        self._touch("")
        if not self._closing:
            self.lending.release_if_unused()

    # --- kernels, for people

    def kernel(self, kernel_id: str) -> Kernel:
        """Raises NotFound."""
        try:
            return self.kernels[kernel_id]
        except KeyError:
            raise errors.NotFound("This server has no such notebook kernel.") from None

    async def kernel_status(self, kernel_id: str) -> KernelStatus:
        kernel = self.kernel(kernel_id)
        await kernel.find_notebook()
        return kernel.status()

    async def ask(
        self, kernel_id: str, placement: Any, *, consent: bool = False, pool: str | None = None
    ) -> KernelStatus:
        """Wish a kernel elsewhere; returns at once. Raises NotFound, MoveInProgress."""
        kernel = self.kernel(kernel_id)
        if placement == "worker" and self._parts.broker is None:
            raise errors.Unavailable(
                "This server is not connected to a GPU service.", hint="Start it through the hub."
            )
        if kernel.recovering:
            raise errors.MoveInProgress("This notebook is being restored.")
        self.last_activity = self.now()
        kernel.ask(placement, consent=consent, pool=pool)
        return kernel.status()

    async def cancel(self, kernel_id: str) -> KernelStatus:
        kernel = self.kernel(kernel_id)
        kernel.cancel()
        self.lending.release_if_unused()
        return kernel.status()

    async def dismiss(self, kernel_id: str, notice_id: str) -> KernelStatus:
        kernel = self.kernel(kernel_id)
        offered = [
            one.snapshot
            for one in kernel.notices.list()
            if one.id == notice_id and one.kind == "restore-offer"
        ]
        kernel.notices.dismiss(notice_id)
        self.states.settle([one for one in offered if one])
        self._touch(kernel_id)
        return kernel.status()

    # --- everything at once

    async def status(self) -> Status:
        keeper = self.keeper
        return Status(
            server=self._parts.server,
            user=keeper.user or self._parts.user,
            lease=keeper.lease,
            kernels=[kernel.status() for kernel in self.kernels.values()],
            commands=list(self.commands.values()),
            pools=keeper.pools,
            quotas=keeper.quotas,
            policy=keeper.policy,
            broker=keeper.state,
            snapshots_bytes=self.states.total_bytes,
            snapshots_limit_bytes=self.states.limit_bytes,
            snapshots_per_notebook=self.states.per_notebook,
        )

    def subscribe(self, put: Put) -> Callable[[], None]:
        """See `Changes.subscribe`."""
        return self._changes.subscribe(put)

    def _touch(self, kernel_id: str) -> None:
        self._changes.touch(kernel_id)

    # --- the end of the server

    async def save_everything(self, within_seconds: float) -> list[KernelReturn]:
        """The server stops: save every kernel with variables where it is, then tell the broker.

        Never raises for what can go wrong with one kernel; the others are saved all the same.
        """
        self._closing = True
        lease_id = self.lease_id()
        done = await save_all(list(self.kernels.values()), within_seconds)
        if lease_id is not None:
            with contextlib.suppress(TimeoutError):
                word = Acknowledge(kernels=done, reason="server-stopped")
                await asyncio.wait_for(self.keeper.acknowledge(lease_id, word), 5.0)
        return done
