"""One kernel of this server: where it runs, where it should run, and what its person must know.

Exists to put many hands' wishes (two tabs, ten quick flips, a lease that ends) into one order:
one thing happens to a kernel at a time, and the latest wish wins as soon as the present step
allows. Promises: `status` never lies about where the kernel is, and shows a wished move at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from gpulease import errors
from gpulease.session import (
    KernelStatus,
    Move,
    MoveStep,
    Placement,
    RebuildPlan,
    RebuildRequest,
    RebuildResult,
    RestoreResult,
    SnapshotReason,
    Verdict,
)
from gpusession.kernels.move import Done, MoveRun, Plan
from gpusession.kernels.ports import AgentError, Endpoint, KernelCommand, Place, RunningKernel
from gpusession.notices import Notices

log = logging.getLogger(__name__)

PARK_SECONDS = 60.0
"""How long the old process of a move waits, stopped, in case the new one fails before its first cell."""

NAMES = {"server": "the server", "worker": "the GPU"}


class Surroundings(Protocol):
    """What a kernel needs from its session."""

    snapshots: Path

    def now(self) -> datetime: ...
    def make_id(self) -> str: ...
    async def worker_place(self, pool: str | None, say: Callable[[MoveStep, str], None]) -> Place: ...
    def server_place(self) -> Place: ...
    async def notebook_of(self, kernel_id: str) -> str | None: ...
    def changed(self, kernel: Kernel) -> None: ...
    def moved(self, kernel: Kernel, done: Done, asked: bool) -> None: ...
    def process_ended(self, kernel: Kernel, process: RunningKernel, status: int) -> None: ...
    def lease_id(self) -> str | None: ...


@dataclass
class _Wish:
    run: MoveRun
    target: Placement
    asked: bool


class Kernel:
    """See the module. All methods run on the session's loop."""

    def __init__(
        self,
        session: Surroundings,
        endpoint: Endpoint,
        command: KernelCommand,
        name: str,
        notebook: str | None,
    ) -> None:
        self._session, self.endpoint, self.command, self.name = session, endpoint, command, name
        self.id = command.kernel_id
        self.notebook = notebook
        self.notices = Notices(session.now, session.make_id)
        self.last_verdict: list[Verdict] = []
        self.life_began = session.now()
        """Since when its variables are these: snapshots from before belong to an earlier life."""
        self.saved_at: datetime | None = None
        self.save_problem: str | None = None
        self.saved_cells = endpoint.finished
        """How many cells had ended when the variables were last saved."""
        self.turn = asyncio.Lock()
        """Held by whatever happens to the kernel: a move, a recovery, a save, a restore."""
        self.recovering = False
        self.exit_status = 0
        """How its last process ended: an exit code, or minus a signal's number."""
        self.parked: RunningKernel | None = None
        self._parking: asyncio.Task[None] | None = None
        self._placement: Placement = "server"
        self._shown: Move | None = None
        self._current: _Wish | None = None
        self._next: _Wish | None = None
        self._director: asyncio.Task[None] | None = None
        self._watched: RunningKernel | None = None
        self._watchers: set[asyncio.Task[None]] = set()

    # --- what is

    @property
    def placement(self) -> Placement:
        running = self.endpoint.running
        if running is not None:
            self._placement = running.placement
        return self._placement

    @property
    def carries_state(self) -> bool:
        return self.command.agent and self.command.language.lower() == "python"

    @property
    def wants_worker(self) -> bool:
        """On the GPU, or on the way to it."""
        if self._next is not None:
            return self._next.target == "worker"
        if self._current is not None:
            return self._current.target == "worker"
        return self.placement == "worker"

    @property
    def moving(self) -> bool:
        return self._current is not None or self._next is not None

    def status(self) -> KernelStatus:
        on_worker = self.placement == "worker"
        return KernelStatus(
            id=self.id,
            name=self.name,
            notebook=self.notebook,
            language=self.command.language,
            placement=self.placement,
            movable="state" if self.carries_state else "fresh",
            busy=self.endpoint.in_flight is not None,
            lease=self._session.lease_id() if on_worker else None,
            move=self._shown,
            last_verdict=self.last_verdict,
            saved_at=self.saved_at,
            save_problem=self.save_problem,
            notices=self.notices.list(),
        )

    def show(self, move: Move | None) -> None:
        """Show something that happens to the kernel (a recovery) in the form of a move."""
        self._shown = move
        self._session.changed(self)

    # --- moves

    def ask(self, target: Placement, *, consent: bool = False, pool: str | None = None) -> None:
        """A person's wish. Raises MoveInProgress while the kernel is on its way back from an ending lease."""
        last = self._next or self._current
        if last is not None and not last.asked and target == "worker":
            raise errors.MoveInProgress("This notebook is on its way back to the server.")
        if last is not None and last.target == target and not last.run.called_off:
            if consent:
                last.run.accept()
            return
        if last is None and self.placement == target:
            return
        reason: SnapshotReason = "move" if target == "worker" else "release"
        self._wish(target, asked=True, consent=consent, reason=reason, pool=pool)

    async def send_back(self, reason: SnapshotReason, patience_seconds: float) -> Done | None:
        """Bring it back to the server: the lease is ending. Returns how, None: it was there already."""
        last = self._next or self._current
        if last is not None and last.target == "server":
            last.run.hurry(patience_seconds)
            last.asked = False
        elif self.placement == "server" and last is None:
            return None
        else:
            self._wish("server", asked=False, consent=True, reason=reason, patience_seconds=patience_seconds)
        wish = self._next or self._current
        await self.settled()
        return wish.run.done if wish is not None else None

    def _wish(
        self,
        target: Placement,
        *,
        asked: bool,
        consent: bool,
        reason: SnapshotReason,
        pool: str | None = None,
        patience_seconds: float | None = None,
    ) -> None:
        if self._next is not None:
            self._next.run.drop("Called off.")
            self._next = None
        if self._current is not None:
            self._current.run.cancel("Called off: the switch was turned back.")
        plan = Plan(
            id=self._session.make_id(),
            endpoint=self.endpoint,
            command=self.command,
            target=target,
            find_place=self._finder(target, pool),
            snapshots=self._session.snapshots,
            meta=self.meta,
            reason=reason,
            carries_state=self.carries_state,
            consent=consent,
            asked=asked,
            interrupt_after_seconds=patience_seconds,
            where=NAMES[target],
        )
        run = MoveRun(plan, self._session.now, self._heard)
        self._next = _Wish(run, target, asked)
        self.show(run.move)
        if self._director is None or self._director.done():
            self._director = asyncio.create_task(self._direct(), name=f"director-{self.id}")

    def _finder(
        self, target: Placement, pool: str | None
    ) -> Callable[[Callable[[MoveStep, str], None]], Awaitable[Place]]:
        async def find(say: Callable[[MoveStep, str], None]) -> Place:
            if target == "server":
                return self._session.server_place()
            return await self._session.worker_place(pool, say)

        return find

    async def find_notebook(self) -> str | None:
        """The notebook's path as it is now; one that was renamed meanwhile is found too."""
        self.notebook = await self._session.notebook_of(self.id) or self.notebook
        return self.notebook

    async def meta(self) -> dict[str, Any]:
        """What a snapshot's manifest says of this notebook."""
        await self.find_notebook()
        return {"kernel": self.id, "notebook": self.notebook, "name": self.name}

    async def _direct(self) -> None:
        while self._next is not None:
            async with self.turn:
                if self._next is None:
                    return
                self._current, self._next = self._next, None
                wish = self._current
                if wish.target == self.placement:
                    wish.run.skip(f"The notebook runs on {NAMES[wish.target]}.")
                else:
                    done = await wish.run.run()
                    self._after(done)
                self._current = None
            self._session.moved(self, wish.run.done, wish.asked)
            self._session.changed(self)

    def _after(self, done: Done) -> None:
        if done.verdicts:
            self.last_verdict = done.verdicts
        if done.switched:
            self.watch()
            if done.saved:
                self.was_saved(self.endpoint.finished - self.endpoint.succeeded)
            if done.old is not None:
                self._park(done.old)

    def _heard(self, move: Move) -> None:
        shown = self._next or self._current
        if shown is not None and move.id == shown.run.move.id:
            self.show(move)

    def cancel(self) -> None:
        """Call off the move. Raises NotFound (there is none), Conflict (too late, or not his to stop)."""
        last = self._next or self._current
        if last is None:
            raise errors.NotFound("This notebook is not moving.")
        if not last.asked:
            raise errors.Conflict("The GPU is being taken back: this move cannot be cancelled.")
        if self._next is not None:
            dropped, self._next = self._next, None
            dropped.run.drop("Cancelled.")
            if self._current is None:
                self.show(dropped.run.move)
                return
            self.show(self._current.run.move)
        if self._current is not None and not self._current.run.cancel():
            raise errors.Conflict("It is too late to cancel: the notebook has just been switched over.")

    async def settled(self) -> None:
        """Wait until nothing is moving."""
        while self._director is not None and not self._director.done():
            await asyncio.wait([self._director])

    # --- the old process of a move

    def _park(self, old: RunningKernel) -> None:
        before = self.parked
        self.parked = old
        if self._parking is not None:
            self._parking.cancel()
        self._parking = asyncio.create_task(self._keep_parked(old, before))

    async def _keep_parked(self, old: RunningKernel, before: RunningKernel | None) -> None:
        if before is not None:
            await _end(before)
        try:
            with contextlib.suppress(errors.GpuhubError):
                await old.signal(signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            until = loop.time() + PARK_SECONDS
            while loop.time() < until and not self.endpoint.succeeded and not old.exited.done():  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # the relay counts on a thread of its own
        finally:
            if self.parked is old:
                self.parked = None
                await asyncio.shield(_end(old))

    def take_parked(self) -> RunningKernel | None:
        """Take the parked process out of its parking place, if it still lives there."""
        old, self.parked = self.parked, None
        if self._parking is not None:
            self._parking.cancel()
        return old if old is not None and not old.exited.done() else None

    async def end_parked(self, placement: Placement | None = None) -> None:
        if self.parked is not None and placement in (None, self.parked.placement):
            old = self.take_parked()
            if old is not None:
                await _end(old)

    # --- the process's end

    def watch(self) -> None:
        """Follow the process that answers now; its end is told to the session once."""
        running = self.endpoint.running
        if running is None or running is self._watched:
            return
        self._watched = running
        task = asyncio.create_task(self._wait_for_end(running))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _wait_for_end(self, running: RunningKernel) -> None:
        status = await asyncio.shield(running.exited)
        if self.endpoint.running is running and self._watched is running:
            self._session.process_ended(self, running, status)

    # --- state

    @property
    def unsaved(self) -> bool:
        """Something may have changed since the variables were last saved."""
        return self.endpoint.finished != self.saved_cells

    def was_saved(self, finished: int) -> None:
        """Its variables are saved as they were after so many cells."""
        self.saved_cells, self.saved_at, self.save_problem = finished, self._session.now(), None
        self._session.changed(self)

    def saving_failed(self, why: str) -> None:
        """It could not be saved automatically: shown until it could."""
        self.save_problem = why
        self._session.changed(self)

    def begin_life(self, *, anew: bool) -> None:
        """A process was started for it. ``anew``: with no variables; else the last saved ones are loaded."""
        if anew:
            self.life_began, self.saved_at, self.last_verdict = self._session.now(), None, []
        self.saved_cells, self.save_problem = self.endpoint.finished, None

    def folder_of(self, snapshot: str) -> Path:
        return self._session.snapshots / snapshot

    async def save(self, reason: SnapshotReason, accept: Literal["all", "none"] = "all") -> dict[str, Any]:
        """Save where it is, between two cells. Raises LeftNeedsConsent, StorageFull, Conflict …"""
        self._need_state()
        async with self._alone():
            body = {
                "folder": str(self._session.snapshots),
                "meta": {**await self.meta(), "reason": reason},
                "accept": accept,
            }
            finished = self.endpoint.finished
            saved = await self.request("save", body)
            self.last_verdict = [Verdict.model_validate(one) for one in saved["verdicts"]]
        self.was_saved(finished)
        return saved

    async def restore(self, snapshot: str, names: list[str] | None) -> RestoreResult:
        """Load a snapshot, or some of its variables. Raises SnapshotUnusable, NotFound, Conflict."""
        self._need_state()
        async with self._alone():
            folder = str(self._session.snapshots / snapshot)
            loaded = await self.request("load", {"folder": folder, "names": names})
        self.saved_cells = -1
        verdicts = [Verdict.model_validate(one) for one in loaded["verdicts"]]
        self.last_verdict = verdicts
        self.notices.drop("restore-offer")
        self._session.changed(self)
        return RestoreResult(snapshot=snapshot, verdicts=verdicts)

    async def rebuild_plan(self, names: list[str] | None) -> RebuildPlan:
        """Which cells would make these variables again (None: all that are lost). Raises Conflict …"""
        self._need_state()
        return RebuildPlan.model_validate(await self.request("plan", {"names": names}, "control"))

    async def rebuild(self, wish: RebuildRequest) -> RebuildResult:
        """Run the cells of a plan. Raises Conflict (others are needed now), Unavailable (too slow) …"""
        self._need_state()
        async with self._alone():
            self.saved_cells = -1
            work = self.request("rebuild", {"names": wish.names, "cells": wish.cells})
            try:
                done = await asyncio.wait_for(work, wish.timeout_seconds)
            except TimeoutError:
                text = (
                    f"The cells ran for longer than {wish.timeout_seconds:.0f} seconds and were interrupted."
                )
                raise errors.Unavailable(text, hint="Run them in the notebook, or allow more time.") from None
        return RebuildResult.model_validate(done)

    async def request(self, op: str, body: dict[str, Any], channel: str = "shell") -> dict[str, Any]:
        """One request to the agent; its errors become those of `gpulease.errors`."""
        running = self.endpoint.running
        if running is None or running.exited.done():
            raise errors.Conflict("The notebook's kernel is not running.")
        work = asyncio.ensure_future(self.endpoint.agent.request(op, body, channel=channel))
        try:
            await asyncio.wait({work, running.exited}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise errors.Unavailable("The notebook's kernel ended meanwhile.")
            return work.result()
        except AgentError as error:
            raise _public(error) from error
        except TimeoutError as error:
            raise errors.Unavailable("The notebook's kernel did not answer in time.") from error
        finally:
            work.cancel()

    def _need_state(self) -> None:
        if not self.carries_state:
            raise errors.Conflict(
                f"Only Python notebooks can save their variables; this one is {self.command.language}.",
                hint="Run its cells again instead.",
            )

    @contextlib.asynccontextmanager
    async def _alone(self) -> Any:
        if self.moving or self.recovering:
            raise errors.MoveInProgress("This notebook is moving.")
        async with self.turn:
            yield

    async def close(self) -> None:
        """The kernel is shut down: end its move, its parked process, its watchers."""
        if self._next is not None:
            self._next.run.drop("The notebook was shut down.")
            self._next = None
        if self._current is not None:
            self._current.run.cancel("The notebook was shut down.")
        await self.settled()
        await self.end_parked()
        for task in self._watchers:
            task.cancel()


async def _end(process: RunningKernel) -> None:
    with contextlib.suppress(errors.GpuhubError, OSError):
        # A stopped process cannot die before it is woken on some systems; SIGKILL needs no waking.
        await process.kill()


def _public(error: AgentError) -> errors.GpuhubError:
    told = {"code": error.code, "message": error.message, "details": error.details}
    return errors.from_dict(told if error.hint is None else {**told, "hint": error.hint}, status=503)
