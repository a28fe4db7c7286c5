"""A kernel that was lost goes on with its last saved state.

Three kinds of loss, three answers. The worker is gone (or cannot be reached): what ran is
answered with an error, what waited is aborted, the fence is waited out so that two copies never
run side by side, and the notebook goes on at the server with its last snapshot, saying how old
it is. The process died soon after a move: the parked one takes over. The process died otherwise:
Jupyter restarts it where it was, and the last snapshot of this life is loaded before the next cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from gpulease import errors
from gpulease.session import Move, MoveStep, SnapshotInfo, Verdict
from gpusession.kernel import Kernel
from gpusession.kernels.move import START_SECONDS
from gpusession.kernels.ports import Agent, AgentError, Place, RunningKernel
from gpusession.notices import ended

log = logging.getLogger(__name__)

START_ATTEMPTS = 3


class Saved(Protocol):
    """Where snapshots are read from (`gpusession.state`)."""

    async def of_kernel(self, kernel_id: str, since: datetime) -> Sequence[SnapshotInfo]:
        """Complete ones, newest first."""


class Recovery:
    """Brings lost kernels back."""

    def __init__(
        self,
        saved: Saved,
        server_place: Callable[[], Place],
        fenced: Callable[[], Awaitable[None]],
        now: Callable[[], datetime],
        make_id: Callable[[], str],
    ) -> None:
        self._saved, self._server_place, self._fenced = saved, server_place, fenced
        self._now, self._make_id = now, make_id

    async def worker_lost(self, kernel: Kernel, what: Callable[[], str]) -> None:
        """Bring the kernel back to the server. ``what``: a sentence for the person, by what is known by then.

        Never raises for what can go wrong; a kernel that cannot be started is left to Jupyter.
        """
        kernel.recovering = True
        try:
            async with kernel.turn:
                await self._worker_lost(kernel, what)
        except (errors.GpuhubError, OSError, TimeoutError) as error:
            log.error("kernel %s could not be brought back: %s", kernel.id, error)
            kernel.notices.plain_loss(f"{what()} The notebook could not be started again.")
        finally:
            kernel.recovering = False
            kernel.watch()
            await kernel.endpoint.release()
            kernel.show(_ended(kernel.status().move, self._now()))

    async def _worker_lost(self, kernel: Kernel, what: Callable[[], str]) -> None:
        endpoint = kernel.endpoint
        move = Move(
            id=self._make_id(),
            kernel=kernel.id,
            target="server",
            step="waiting",
            message="The GPU was lost. Making sure that nothing of this notebook still runs there.",
            started_at=self._now(),
            can_cancel=False,
            asked=False,
        )
        kernel.show(move)
        await endpoint.hold()
        cell = await endpoint.fail_in_flight("GpuLost", f"{what()} This cell did not finish.")
        await endpoint.abort_held()
        if cell:
            kernel.notices.cut(cell, "the GPU was lost")
        await self._fenced()
        parked = kernel.take_parked()
        if parked is not None and parked.placement == "server":
            await self._unpark(kernel, parked)
            kernel.notices.parked_back(what())
            return
        kernel.show(_step(move, "starting", "The GPU was lost. Starting the notebook on the server."))
        new, agent = await self._start(kernel)
        kernel.show(_step(move, "loading", "Restoring the last saved state."))
        snapshot, verdicts = await self._load_newest(kernel, agent)
        await endpoint.switch(new)
        kernel.last_verdict = verdicts
        kernel.notices.lost(what(), snapshot, verdicts)

    async def _start(self, kernel: Kernel) -> tuple[RunningKernel, Agent]:
        for attempt in range(START_ATTEMPTS):
            new = await self._server_place().start_kernel(kernel.command)
            try:
                return new, await kernel.endpoint.prove(new, START_SECONDS)
            except (errors.GpuhubError, TimeoutError):
                await kernel.endpoint.discard(new)
                await new.kill()
                if attempt == START_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _load_newest(self, kernel: Kernel, agent: Agent) -> tuple[SnapshotInfo | None, list[Verdict]]:
        if not kernel.carries_state:
            return None, []
        for snapshot in await self._saved.of_kernel(kernel.id, kernel.life_began):
            folder = str(kernel.folder_of(snapshot.id))
            try:
                loaded = await agent.request("load", {"folder": folder, "names": None})
            except (AgentError, TimeoutError) as error:
                log.warning("snapshot %s could not be loaded, trying an older one: %s", snapshot.id, error)
                continue
            return snapshot, [Verdict.model_validate(one) for one in loaded["verdicts"]]
        return None, []

    async def after_crash(self, kernel: Kernel) -> None:
        """A new process runs in the place of one that died: give it the last saved state."""
        kernel.recovering = True
        try:
            async with kernel.turn:
                snapshot, verdicts = await self._load_newest(kernel, kernel.endpoint.agent)
        finally:
            kernel.recovering = False
        what = ended(kernel.exit_status)
        if snapshot is not None:
            kernel.last_verdict = verdicts
            kernel.notices.restored(what, snapshot, verdicts)
        else:
            kernel.notices.plain_loss(f"{what} No state had been saved: it starts anew.")

    async def back_to_parked(self, kernel: Kernel, parked: RunningKernel) -> None:
        """The new process of a move died before its first cell was done: the old one goes on."""
        kernel.recovering = True
        try:
            async with kernel.turn:
                endpoint = kernel.endpoint
                await endpoint.hold()
                what = ended(kernel.exit_status)
                await endpoint.fail_in_flight("KernelDied", f"{what} This cell did not finish.")
                await endpoint.abort_held()
                await self._unpark(kernel, parked)
                kernel.notices.parked_back(f"{what} That was right after its move.")
        except (errors.GpuhubError, OSError, TimeoutError) as error:
            log.warning("the parked process of kernel %s could not take over: %s", kernel.id, error)
        finally:
            kernel.recovering = False
            kernel.watch()
            await kernel.endpoint.release()
            kernel.show(kernel.status().move)

    async def _unpark(self, kernel: Kernel, parked: RunningKernel) -> None:
        await parked.signal(signal.SIGCONT)
        try:
            await kernel.endpoint.prove(parked, START_SECONDS)
            await kernel.endpoint.switch(parked)
        except BaseException:
            with contextlib.suppress(errors.GpuhubError, OSError):
                await asyncio.shield(parked.kill())
            raise


def _step(move: Move, step: MoveStep, message: str) -> Move:
    return move.model_copy(update={"step": step, "message": message})


def _ended(move: Move | None, now: datetime) -> Move | None:
    if move is None or move.ended_at is not None:
        return move
    changes: dict[str, Any] = {"step": "done", "ended_at": now, "message": "The notebook runs on the server."}
    return move.model_copy(update=changes)
