"""Saves notebooks by themselves, so that a crash costs no more than the work since the last time.

A kernel is due when cells that took `work_seconds` together have ended since its last save, or when any
cell has and `every_seconds` have passed. It is saved by a forked copy of itself, between two cells; where
that cannot be (`gpusession.state.background`: a GPU is in use, say) by the kernel itself, between two
cells. Promises: the next cell waits for at most `BOUND_SECONDS`, also in the middle of a Run All: a save
that takes longer is called off for it and tried again later; saving takes at most a fifth of a kernel's
time; a failure is shown with its reason and keeps nothing else from working; of a kernel's automatic
states the newest `KEPT` stay, so that they never push out what was saved for another reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from gpulease import errors
from gpulease.models import Policy
from gpusession.kernel import Kernel
from gpusession.savedstates import SavedStates

log = logging.getLogger(__name__)

BOUND_SECONDS = 1.0
KEPT = 2
"""The newest may be of a moment that went wrong already; the one before is a second chance."""
LOOK_SECONDS = 1.0
LOOKS_BETWEEN_COUNTS = 3
POLL_SECONDS = 0.2
SHARE = 5.0
"""A save that took a second is not followed by another within so many."""
CALLED_OFF_SECONDS = 5.0
"""After a save that gave way to a cell."""
RETRY_SECONDS = 60.0
"""After a failure (a full disk, say)."""


@dataclass
class Rules:
    """``every_seconds`` 0: never."""

    every_seconds: float = 300.0
    work_seconds: float = 10.0


def rules_of(policy: Policy | None) -> Rules:
    """Return the site's rules; a server without a broker keeps the defaults."""
    if policy is None:
        return Rules()
    return Rules(policy.automatic_save_seconds, policy.automatic_save_work_seconds)


@dataclass
class _Tally:
    """What is known of one kernel's unsaved work. Times are the loop's."""

    saved_cells: int = 0
    """The count of cells at the kernel's last save, for whatever reason: what follows is work since then."""
    dirty_since: float | None = None
    busy_seconds: float = 0.0
    not_before: float = 0.0
    took_seconds: float | None = None
    """The last save between cells; None: not known."""
    saving: bool = False
    copies: bool = True
    """False: a copy of it has failed; from now on it is saved between its cells."""


class _CopyFailed(Exception):
    """It hung or crashed: something in this kernel does not survive a fork."""


class Autosave:
    """Runs on the session's loop. ``look_seconds``: how often it is looked what is due."""

    def __init__(
        self,
        kernels: Mapping[str, Kernel],
        states: SavedStates,
        rules: Callable[[], Rules],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        *,
        look_seconds: float = LOOK_SECONDS,
        bound_seconds: float = BOUND_SECONDS,
    ) -> None:
        self._kernels, self._states, self._rules, self._spawn = kernels, states, rules, spawn
        self._look_seconds, self._bound_seconds = look_seconds, bound_seconds
        self._tallies: dict[str, _Tally] = {}

    async def follow(self) -> None:
        """For ever: look what is due, and save it."""
        looks = 0
        while True:
            await asyncio.sleep(self._look_seconds)
            looks += 1
            if looks % LOOKS_BETWEEN_COUNTS == 0:
                await self._states.look()
            for kernel in [*self._kernels.values()]:
                tally = self._tallies.setdefault(kernel.id, _Tally())
                if self._due(kernel, tally):
                    tally.saving = True
                    self._spawn(self._save(kernel, tally), "automatic-save")
            for kernel_id in self._tallies.keys() - self._kernels.keys():
                del self._tallies[kernel_id]

    def _due(self, kernel: Kernel, tally: _Tally) -> bool:
        now, rules = asyncio.get_running_loop().time(), self._rules()
        if tally.saved_cells != kernel.saved_cells:
            tally.saved_cells, tally.dirty_since, tally.busy_seconds = kernel.saved_cells, None, 0.0
        if kernel.endpoint.in_flight is not None and not kernel.endpoint.waits_for_input:
            tally.busy_seconds += self._look_seconds
        if not kernel.carries_state or not kernel.unsaved or rules.every_seconds <= 0:
            return False
        tally.dirty_since = now if tally.dirty_since is None else tally.dirty_since
        if tally.saving or now < tally.not_before or not _at_rest(kernel):
            return False
        worked = tally.busy_seconds >= rules.work_seconds
        return worked or now - tally.dirty_since >= rules.every_seconds

    async def _save(self, kernel: Kernel, tally: _Tally) -> None:
        loop, running = asyncio.get_running_loop(), kernel.endpoint.running
        try:
            if await self._saved(kernel, tally):
                await self._tidy(kernel.id)
                await self._states.measure()
            else:
                tally.not_before = max(tally.not_before, loop.time() + CALLED_OFF_SECONDS)
        except _CopyFailed as error:
            log.warning("kernel %s is saved between its cells from now on: %s", kernel.id, error)
            tally.copies, tally.not_before = False, 0.0
        except errors.GpuhubError as error:
            log.warning("kernel %s could not be saved automatically: %s", kernel.id, error)
            tally.not_before = loop.time() + RETRY_SECONDS
            ended = running is None or running.exited.done() or kernel.endpoint.running is not running
            if not ended and not isinstance(error, errors.Conflict):
                kernel.saving_failed(error.message)
        finally:
            tally.saving = False

    async def _saved(self, kernel: Kernel, tally: _Tally) -> bool:
        """Save; False: called off for a cell, or there is nothing to save. Raises GpuhubError."""
        if not (_at_rest(kernel) and kernel.unsaved):
            return False
        finished = kernel.endpoint.finished
        body = {
            "folder": str(self._states.folder),
            "meta": {**await kernel.meta(), "reason": "automatic"},
        }
        begun = await kernel.request("automatic", {**body, "fork": tally.copies})
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if begun["forked"]:
                await self._copied(kernel, str(begun["snapshot"]))
            elif not await self._between(kernel, tally, body):
                return False
        finally:
            tally.not_before = loop.time() + SHARE * (loop.time() - began)
        kernel.was_saved(finished)
        return True

    async def _copied(self, kernel: Kernel, snapshot: str) -> None:
        """Wait until the copy has saved. Raises GpuhubError, _CopyFailed."""
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                told = await kernel.request("background", {}, channel="control")
                if not told["running"]:
                    break
        except errors.GpuhubError:
            # The kernel has ended, and its copy with it: nobody else knows what that has begun to write.
            left = self._states.folder / f".{snapshot}.new"
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
            raise
        outcome = told["outcome"] or {}
        if outcome.get("status") == "ok":
            return
        error = errors.from_dict(outcome, status=503)
        if isinstance(error, errors.StorageFull | errors.Conflict):
            raise error
        raise _CopyFailed(error.message)

    async def _between(self, kernel: Kernel, tally: _Tally, body: dict[str, Any]) -> bool:
        """Let the kernel itself save; False: somebody waited for it for too long."""
        loop, endpoint = asyncio.get_running_loop(), kernel.endpoint
        in_a_row = endpoint.in_flight is not None or endpoint.waiting > 0
        if in_a_row and (tally.took_seconds is None or tally.took_seconds > self._bound_seconds):
            return False
        began, waited = loop.time(), 0.0
        work = asyncio.ensure_future(kernel.request("save", {**body, "accept": "all"}))
        try:
            while not (await asyncio.wait([work], timeout=self._bound_seconds / 10))[0]:
                if endpoint.in_flight is None and (endpoint.waiting or kernel.moving):
                    waited += self._bound_seconds / 10
                if waited >= self._bound_seconds * 0.9:
                    tally.took_seconds = max(loop.time() - began, self._bound_seconds * 2)
                    return False
            work.result()
        finally:
            work.cancel()
        tally.took_seconds = loop.time() - began
        return True

    async def _tidy(self, kernel_id: str) -> None:
        own = [
            one
            for one in await self._states.list()
            if one.kernel == kernel_id and one.reason == "automatic" and one.complete
        ]
        for one in own[KEPT:]:
            with contextlib.suppress(errors.NotFound):
                await self._states.delete(one.id)


def _at_rest(kernel: Kernel) -> bool:
    running = kernel.endpoint.running
    return not (
        kernel.moving or kernel.recovering or kernel.turn.locked() or running is None or running.exited.done()
    )
