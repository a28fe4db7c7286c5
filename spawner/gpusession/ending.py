"""A lease ends: every kernel comes back before the worker is stopped.

Promises: each kernel is saved and moved within the deadline, a cell that still runs when the
deadline nears is interrupted and named, and the broker hears a summary as soon as nothing worth
saving is left on the worker, so that the next person does not wait for the clock. What cannot
be brought back in time is left to the worker's own saving, and said so.
Source: DESIGN §4, "Ending".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal

from gpulease.models import Acknowledge, KernelReturn, Lease
from gpulease.session import SnapshotReason
from gpulease.states import EndReason
from gpusession.kernel import Kernel
from gpusession.kernels.move import Done
from gpusession.notices import WHY

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
SAVE_SHARE = 0.5
"""The share of an ending's time that is kept for saving: a cell may run on during the rest."""
MOST_SAVE_SECONDS = 60.0
"""…but no more than this: with a long deadline the cell gets what is over."""

SNAPSHOT_REASON: dict[EndReason, SnapshotReason] = {
    EndReason.RELEASED: "release",
    EndReason.IDLE: "idle",
    EndReason.SERVER_STOPPED: "server-stop",
}


class Ending:
    """Empties a worker whose lease is on its way out."""

    def __init__(
        self,
        kernels: Callable[[], Sequence[Kernel]],
        acknowledge: Callable[[str, Acknowledge], Awaitable[None]],
        now: Callable[[], datetime],
        also: Sequence[Callable[[Lease], Awaitable[None]]] = (),
    ) -> None:
        self._kernels, self._acknowledge, self._now = kernels, acknowledge, now
        self._also = also

    async def run(self, lease: Lease, *, unused: bool = False) -> None:
        """Bring all kernels back, then tell the broker.

        ``unused``: it was given back because nothing used it. Who wants a GPU now wants another one.
        """
        kernels = [
            kernel
            for kernel in self._kernels()
            if kernel.placement == "worker" or (kernel.wants_worker and not unused)
        ]
        reason = lease.reason or (lease.ending.reason if lease.ending else EndReason.RELEASED)
        left = self.seconds_left(lease)
        log.info(
            "lease %s ends (%s): %d kernels come back within %.0f s", lease.id, reason, len(kernels), left
        )
        others = asyncio.gather(*(leave(lease) for leave in self._also))
        returns = await asyncio.gather(*(self._bring_back(kernel, lease, reason) for kernel in kernels))
        await others
        for kernel in self._kernels():
            await kernel.end_parked("worker")
        await self._acknowledge(lease.id, Acknowledge(kernels=[one for one in returns if one is not None]))

    def seconds_left(self, lease: Lease) -> float:
        if lease.ending is None:
            return 0.0
        return max(0.0, (lease.ending.deadline - self._now()).total_seconds())

    async def _bring_back(self, kernel: Kernel, lease: Lease, reason: EndReason) -> KernelReturn | None:
        why = WHY[reason]
        while True:
            left = self.seconds_left(lease)
            patience = left - min(left * SAVE_SHARE, MOST_SAVE_SECONDS)
            work = asyncio.ensure_future(kernel.send_back(SNAPSHOT_REASON.get(reason, "ending"), patience))
            done: Done | None = None
            try:
                done = await asyncio.wait_for(asyncio.shield(work), left + 1.0)
            except TimeoutError:
                log.warning("kernel %s did not come back in time", kernel.id)
            if done is None and kernel.placement == "server":
                return None
            if done is not None and done.cut:
                kernel.notices.cut(done.cut, why)
            if done is not None and done.switched:
                kernel.notices.moved_back(why, done.snapshot, done.verdicts)
                return _summary(kernel, done, "moved")
            if kernel.placement == "server":
                return None
            if self.seconds_left(lease) <= RETRY_SECONDS:
                # The worker saves by itself when it is stopped; the link's loss brings the notebook back.
                return _summary(kernel, done or Done(False), "saved" if done and done.saved else "lost")
            await asyncio.sleep(RETRY_SECONDS)


def _summary(
    kernel: Kernel, done: Done, outcome: Literal["moved", "saved", "lost", "stopped"]
) -> KernelReturn:
    return KernelReturn(
        kernel=kernel.id,
        notebook=kernel.notebook or "",
        outcome=outcome,
        bytes=done.bytes,
        kept=sum(verdict.verdict != "left" for verdict in done.verdicts),
        left=sum(verdict.verdict == "left" for verdict in done.verdicts),
    )
