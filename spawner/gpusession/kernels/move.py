"""One kernel's move from one place to another: the protocol, and nothing about transport.

Prepare (the person goes on working) -> check -> hold -> drain -> save -> load -> switch -> release.
Promises: until the switch the old kernel is untouched, and whatever fails or is cancelled before
it rolls back to it; a variable that would stay behind without consent stops the move; the saved
state stays on disk as the last good one; no held cell is lost or run twice. After the switch the
old process is parked by the caller (`Done.old`), who decides when it may go.
Source of the steps: DESIGN §5.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from gpulease import errors
from gpulease.session import Move, MoveStep, Placement, SnapshotReason, Verdict
from gpusession.kernels.ports import Agent, AgentError, Endpoint, KernelCommand, Place, RunningKernel

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long a new kernel may take from its start to its first answer."""

INTERRUPT_AGAIN_SECONDS = 5.0
"""A cell that ignores an interrupt is interrupted again after this long."""

LOOK_SECONDS = 0.5
"""How often it is looked why the move still waits."""

STAYED = "The notebook goes on where it was; nothing was lost."

T = TypeVar("T")


class _OldDied(Exception):
    """What ran before is gone: there is nothing to go on with, others restore it."""


@dataclass
class Plan:
    """Everything that one move needs to know."""

    id: str
    endpoint: Endpoint
    command: KernelCommand
    target: Placement
    find_place: Callable[[Callable[[MoveStep, str], None]], Awaitable[Place]]
    """Returns where to start the kernel; may wait (for a GPU) and says for what."""
    snapshots: Path
    meta: Callable[[], Awaitable[dict[str, Any]]]
    """What the snapshot's manifest should know of the notebook, asked when it is saved."""
    reason: SnapshotReason = "move"
    carries_state: bool = True
    """False: another language; the kernel starts anew."""
    consent: bool = False
    asked: bool = True
    interrupt_after_seconds: float | None = None
    """An ending lease's patience with a running cell."""
    where: str = "the server"
    """How the target is called in sentences."""


@dataclass
class Done:
    """What a move left behind, however it ended."""

    switched: bool
    snapshot: str | None = None
    bytes: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    cut: str | None = None
    """The code of the cell that had to be interrupted."""
    old: RunningKernel | None = None
    """The process that answered before the switch, still alive."""
    saved: bool = False


class _Stop(Exception):
    """Ends a move before its switch: with a step, a sentence, and what to show."""

    def __init__(
        self, step: MoveStep, message: str, *, code: str | None = None, verdicts: list[Verdict] | None = None
    ) -> None:
        super().__init__(message)
        self.step, self.message, self.code, self.verdicts = step, message, code, verdicts


class MoveRun:
    """Runs one plan. ``on_change`` gets the new `Move` at each step and progress."""

    def __init__(self, plan: Plan, now: Callable[[], datetime], on_change: Callable[[Move], None]) -> None:
        self._plan, self._now, self._on_change = plan, now, on_change
        self.move = Move(
            id=plan.id,
            kernel=plan.endpoint.kernel_id,
            target=plan.target,
            step="waiting" if plan.target == "worker" else "starting",
            message="Asking for a GPU." if plan.target == "worker" else "Getting ready to move.",
            started_at=now(),
            asked=plan.asked,
            error=None,
        )
        self.done = Done(switched=False)
        self._new: RunningKernel | None = None
        self._consent = plan.consent
        self.called_off = False
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._cancel_message = "Cancelled."

    # --- from outside

    async def run(self) -> Done:
        """Run to the end; never raises for what can go wrong with a move."""
        self._task = asyncio.create_task(self._steps(), name=f"move-{self._plan.id}")
        self._watch = asyncio.create_task(self._interrupt_in_time())
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait([self._task])
            raise
        finally:
            if self._watch is not None:
                self._watch.cancel()
            await self._finish(self._task)
        return self.done

    def accept(self) -> None:
        """The person agrees that some variables stay behind."""
        self._consent = True

    def hurry(self, interrupt_after_seconds: float) -> None:
        """The lease is ending: take what can be saved, and do not wait for ever for a cell."""
        self._consent = True
        self._plan.interrupt_after_seconds = interrupt_after_seconds
        self._note(asked=False)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = asyncio.create_task(self._interrupt_in_time())

    def skip(self, message: str) -> None:
        """There is nothing to move any more."""
        self._end("done", message)

    def drop(self, message: str) -> None:
        """It was called off before it began."""
        self._end("cancelled", message)

    def cancel(self, message: str = "Cancelled.") -> bool:
        """Stop before the switch; False when it is too late."""
        if not self.move.can_cancel or self.move.ended_at is not None:
            return False
        self._cancel_message, self.called_off = message, True
        if self._task is not None:
            self._task.cancel()
        return True

    # --- the steps

    async def _steps(self) -> None:
        plan, endpoint = self._plan, self._plan.endpoint
        if plan.target == "worker" and plan.command.transport == "tcp":
            raise _Stop(
                "refused",
                f"This {plan.command.language} kernel runs beside the server only: it cannot be reached "
                "through the connection to a GPU.",
                code=errors.Conflict.code,
            )
        if not plan.carries_state and not self._consent and plan.asked:
            raise _Stop(
                "refused",
                f"A {plan.command.language} notebook starts anew when it moves: its variables stay behind.",
                code=errors.LeftNeedsConsent.code,
                verdicts=[_everything(plan.command.language)],
            )
        place = await plan.find_place(self._say)
        old = endpoint.running
        if old is None:
            raise errors.Conflict("The notebook's kernel is not running.")
        self._say("starting", f"Starting the notebook on {plan.where}.")
        self._new = new = await place.start_kernel(plan.command)
        agent = await self._alive(endpoint.prove(new, START_SECONDS), old, new)
        if plan.carries_state:
            await self._prepare(endpoint.agent, agent, old, new)
            if plan.asked:
                await self._check(endpoint, old, new)
        self._say_holding()
        await endpoint.hold()
        await self._alive(self._drained(), old, new)
        if plan.carries_state:
            await self._carry(endpoint.agent, agent, old, new)
        self._say("switching", f"Switching to {plan.where}.", can_cancel=False)
        self.done.old = await asyncio.shield(endpoint.switch(new))
        self.done.switched, self._new = True, None
        await asyncio.shield(endpoint.release())

    async def _prepare(self, agent: Agent, fresh: Agent, old: RunningKernel, new: RunningKernel) -> None:
        """Import beforehand what the notebook uses; what fails here shows at the load, where it counts."""
        with contextlib.suppress(AgentError, TimeoutError):
            known = await self._alive(
                agent.request("modules", channel="control", timeout_seconds=10), old, new
            )
            modules = {"modules": known.get("modules", [])}
            await self._alive(fresh.request("prepare", modules, timeout_seconds=60), old, new)

    async def _check(self, endpoint: Endpoint, old: RunningKernel, new: RunningKernel) -> None:
        asked = asyncio.ensure_future(self._alive(endpoint.agent.request("check"), old, new))
        try:
            while not asked.done():
                self._say_once("checking", self._why_checking(endpoint))
                await asyncio.wait([asked], timeout=LOOK_SECONDS)
            found = asked.result()
        finally:
            asked.cancel()
        verdicts = _verdicts(found)
        self._note(bytes_total=found.get("bytes"), verdicts=verdicts)
        self._need_consent(verdicts)

    def _why_checking(self, endpoint: Endpoint) -> str:
        if endpoint.waits_for_input:
            return "Waiting for your answer to the running cell's question, to check what can move."
        if endpoint.in_flight is not None:
            return "Waiting for the running cell, to check what can move."
        return "Checking what can move."

    def _need_consent(self, verdicts: list[Verdict]) -> None:
        left = any(verdict.needs_consent for verdict in verdicts)
        if left and self._plan.asked and not self._consent:
            code = errors.LeftNeedsConsent.code
            raise _Stop("refused", _would_stay(verdicts), code=code, verdicts=verdicts)

    async def _carry(self, agent: Agent, fresh: Agent, old: RunningKernel, new: RunningKernel) -> None:
        plan = self._plan
        accept = "all" if self._consent or not plan.asked else "none"
        self._say("saving", "Saving the variables.", bytes_done=0)
        meta = {**await plan.meta(), "reason": plan.reason}
        body: dict[str, Any] = {"folder": str(plan.snapshots), "meta": meta, "accept": accept}
        saved = await self._alive(agent.request("save", body, progress=self._progress("Saving")), old, new)
        verdicts = _verdicts(saved)
        self.done.snapshot, self.done.bytes = str(saved["snapshot"]), int(saved["bytes"])
        self.done.verdicts, self.done.saved = verdicts, True
        self._note(verdicts=verdicts)
        self._need_consent(verdicts)
        self._say(
            "loading", f"Restoring the variables on {plan.where}.", bytes_done=0, bytes_total=self.done.bytes
        )
        body = {"folder": str(plan.snapshots / self.done.snapshot), "names": None}
        loaded = await self._alive(
            fresh.request("load", body, progress=self._progress("Restoring")), old, new
        )
        self.done.verdicts = _overlay(verdicts, _verdicts(loaded))
        self._note(verdicts=self.done.verdicts)
        self._need_consent(self.done.verdicts)

    async def _drained(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await self._plan.endpoint.drain(timeout_seconds=LOOK_SECONDS)
                return
            self._say_holding()

    async def _interrupt_in_time(self) -> None:
        """An ending lease cannot wait for ever: interrupt the cell that still runs, and remember which."""
        if self._plan.interrupt_after_seconds is None:
            return
        await asyncio.sleep(self._plan.interrupt_after_seconds)
        while self.move.ended_at is None and self.move.step in ("starting", "checking", "holding"):
            code, running = self._plan.endpoint.in_flight, self._plan.endpoint.running
            if code is not None and running is not None:
                self.done.cut = self.done.cut or code
                await running.signal(signal.SIGINT)
            await asyncio.sleep(INTERRUPT_AGAIN_SECONDS if code is not None else 0.2)

    async def _alive(self, work: Awaitable[T], *processes: RunningKernel) -> T:
        """Await ``work``, but not beyond the life of any of the processes."""
        task = asyncio.ensure_future(work)
        try:
            ends: set[asyncio.Future[Any]] = {process.exited for process in processes}
            await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
        if self._new is not None and self._new.exited.done():
            raise errors.Unavailable(f"The kernel that was started on {self._plan.where} has ended.")
        raise _OldDied("The notebook's kernel ended during the move.")

    # --- the end

    async def _finish(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self.done.switched:
            if error is not None:
                log.error("a move failed after its switch", exc_info=error)
            self._end("done", f"The notebook runs on {self._plan.where} now.")
            return
        await self._undo()
        if task.cancelled():
            self._end("cancelled", self._cancel_message)
        elif isinstance(error, _Stop):
            self._end(error.step, error.message, error.code, error.verdicts)
        elif isinstance(error, _OldDied):
            self._end("failed", str(error), errors.Unavailable.code)
        elif isinstance(error, AgentError):
            verdicts = _verdicts(error.details)
            if error.code == errors.LeftNeedsConsent.code:
                self._end("refused", _would_stay(verdicts), error.code, verdicts)
            else:
                self._end("failed", f"{_sentence(error.message)} {STAYED}", error.code, hint=error.hint)
        elif isinstance(error, errors.GpuhubError):
            self._end("failed", f"{_sentence(error.message)} {STAYED}", error.code, hint=error.hint)
        elif isinstance(error, TimeoutError):
            text = f"The kernel on {self._plan.where} did not answer in time."
            self._end("failed", f"{text} {STAYED}", errors.Unavailable.code)
        else:
            log.error("a move failed", exc_info=error)
            self._end("failed", f"The move failed for a reason of ours. {STAYED}", errors.GpuhubError.code)

    async def _undo(self) -> None:
        """Back to the old kernel: its queue goes on at once, the new process goes away."""
        endpoint, new = self._plan.endpoint, self._new
        try:
            await endpoint.release()
            if new is not None:
                await endpoint.discard(new)
        finally:
            if new is not None:
                self._new = None
                with contextlib.suppress(errors.GpuhubError, OSError):
                    await new.kill()

    # --- saying

    def _say_holding(self) -> None:
        text = "Waiting for the running cell."
        if self._plan.endpoint.waits_for_input:
            text = "Waiting for your answer to the running cell's question."
        self._say_once("holding", text)

    def _say_once(self, step: MoveStep, message: str) -> None:
        if (self.move.step, self.move.message) != (step, message):
            self._say(step, message)

    def _progress(self, verb: str) -> Callable[[int, int | None], None]:
        def heard(done: int, total: int | None) -> None:
            amount = size_text(done) if total is None else f"{size_text(done)} of {size_text(total)}"
            self._note(bytes_done=done, bytes_total=total, message=f"{verb} {amount}.")

        return heard

    def _say(self, step: MoveStep, message: str, **more: Any) -> None:
        self._note(step=step, message=message, **more)

    def _note(self, **changes: Any) -> None:
        self.move = self.move.model_copy(update=changes)
        self._on_change(self.move)

    def _end(
        self,
        step: MoveStep,
        message: str,
        code: str | None = None,
        verdicts: list[Verdict] | None = None,
        hint: str | None = None,
    ) -> None:
        changes: dict[str, Any] = {
            "ended_at": self._now(),
            "can_cancel": False,
            "error": code,
            "hint": hint or None,
        }
        if verdicts is not None:
            changes["verdicts"] = verdicts
        self._say(step, message, **changes)


def size_text(count: int) -> str:
    """Return a size as people read it: GB with one decimal, smaller ones in MB or kB."""
    if count >= 100_000_000:
        return f"{count / 1e9:.1f} GB"
    if count >= 100_000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e3:.0f} kB"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _would_stay(verdicts: list[Verdict]) -> str:
    left = sum(verdict.needs_consent for verdict in verdicts)
    stays = "1 variable would stay" if left == 1 else f"{left} variables would stay"
    return f"{stays} behind, of {len(verdicts)}. Nothing was moved."


def _verdicts(body: dict[str, Any]) -> list[Verdict]:
    return [Verdict.model_validate(one) for one in body.get("verdicts", [])]


def _overlay(saved: list[Verdict], loaded: list[Verdict]) -> list[Verdict]:
    """What became of each variable at last: the load's word counts where it has one."""
    later = {verdict.name: verdict for verdict in loaded}
    merged = [one if one.verdict == "left" else later.pop(one.name, one) for one in saved]
    known = {one.name for one in merged}
    return merged + [one for name, one in later.items() if name not in known]


def _everything(language: str) -> Verdict:
    return Verdict(
        name="all variables",
        type=language,
        bytes=None,
        verdict="left",
        reason=f"Only Python notebooks carry their variables; this one is {language}.",
        hint="Run its cells again after the move.",
    )
