"""Everything that runs on this worker, who answers for it, and how it ends.

Promises (DESIGN §5, loss of a worker): what belongs to a connection that is gone for longer than
the fence ends here, kernels after saving themselves in the fence's second half, so that the server
may start them elsewhere without two of them running; programs without `keep` are hung up at once.
A kernel that was found again by a new connection stays fenced until somebody claims it.
When the worker is told to end, everything is asked to, then killed, and nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpulease.errors import Conflict, NotFound, Unavailable
from gpusession.worker import environment, program
from gpusession.worker.descendants import kill_all, reap
from gpusession.worker.kernels import Owner, WorkerKernel, start_kernel
from gpusession.worker.program import Program
from gpusession.worker.protocol import Run, StartKernel

log = logging.getLogger(__name__)

SAVING_SHARE = 0.5
"""The share of the fence after which unclaimed kernels are asked to save: until then a short cut
costs nothing, and what is left must do for the writing."""
LOOK_SECONDS = 1.0
STALL_SECONDS = 4.0
"""A look that comes this much too late: this process stood still, and heard nobody meanwhile."""
STALL_MEMORY_SECONDS = 15.0
"""A cut that is noticed this soon after a standstill happened during it."""
ATTACH_SECONDS = 15.0
"""A program whose bytes nobody asks for in this time was started for nobody."""
LAST_WORDS_SECONDS = 0.3


class Work:
    """The kernels and programs of one worker; all calls on its loop."""

    def __init__(
        self,
        runtime: Path,
        own_environment: Mapping[str, str],
        *,
        fence_seconds: float,
        grace_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._runtime, self._own = runtime, dict(own_environment)
        self._fence_seconds, self._grace_seconds, self._clock = fence_seconds, grace_seconds, clock
        self._kernels: dict[str, WorkerKernel] = {}
        self._programs: dict[str, Program] = {}
        self._owners: dict[str, Owner | None] = {}
        """Of programs, by target."""
        self._present: set[Owner] = set()
        self._number = 0
        self._ending = False
        self._heard = self._looked = clock()
        self._stood_still = (-STALL_MEMORY_SECONDS, -STALL_MEMORY_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- starting

    async def start_kernel(self, order: StartKernel, owner: Owner) -> dict[str, Any]:
        """Start a kernel. Raises InvalidOption, Unavailable."""
        self._check_not_ending()
        target = self._next("k")
        env = environment.on_worker(order.env, self._own)
        kernel = await start_kernel(order, env, target, self._runtime)
        self._kernels[target] = kernel
        kernel.owner = owner
        kernel.exited.add_done_callback(lambda done: self._kernel_ended(kernel, done.result()))
        if self._ending:
            await kernel.kill()
            self._check_not_ending()
        if owner not in self._present:  # it went while the process started
            self._unclaimed([kernel])
        log.info("kernel started", extra={"target": target, "pid": kernel.pid})
        return kernel.shown()

    async def run(self, order: Run, owner: Owner) -> dict[str, Any]:
        """Start a program. Raises InvalidOption, Unavailable."""
        self._check_not_ending()
        target = self._next("c")
        started = await program.start(
            order.argv,
            env=environment.on_worker(order.env, self._own),
            cwd=order.cwd,
            terminal=order.terminal,
            keep=order.keep,
        )
        self._programs[target], self._owners[target] = started, owner
        if self._ending:
            await started.kill()
            self._check_not_ending()
        if owner not in self._present:
            started.let_go()
        started.exited.add_done_callback(lambda done: self._program_ended(target, done.result()))
        asyncio.get_running_loop().call_later(ATTACH_SECONDS, self._drop_unread, started)
        log.info("program started", extra={"target": target, "pid": started.pid})
        return {"target": target, "pid": started.pid}

    def _next(self, kind: str) -> str:
        self._number += 1
        return f"{kind}{self._number}"

    def _check_not_ending(self) -> None:
        if self._ending:
            raise Unavailable("The worker is ending.")

    def _drop_unread(self, started: Program) -> None:
        if not started.attached:
            started.let_go()

    # --- finding

    def kernels(self) -> list[WorkerKernel]:
        return list(self._kernels.values())

    def kernel(self, target: str) -> WorkerKernel:
        """Raises NotFound."""
        try:
            return self._kernels[target]
        except KeyError:
            raise NotFound("This kernel is not on the worker any more.") from None

    def program(self, target: str) -> Program:
        """Raises NotFound."""
        try:
            return self._programs[target]
        except KeyError:
            raise NotFound("This program is not on the worker any more.") from None

    def adopt(self, target: str, owner: Owner) -> None:
        """Let a kernel belong to this connection. Raises NotFound, Conflict (it is saving itself)."""
        kernel = self.kernel(target)
        if kernel.ending:
            raise Conflict("This kernel is ending already.", hint="Restore what it saves.")
        kernel.owner = owner

    def _kernel_ended(self, kernel: WorkerKernel, status: int) -> None:
        self._kernels.pop(kernel.target, None)
        log.info("kernel ended", extra={"target": kernel.target, "status": status})
        if kernel.owner is not None:
            kernel.owner.tell({"event": "ended", "target": kernel.target, "status": status})

    def _program_ended(self, target: str, status: int) -> None:
        owner = self._owners.pop(target, None)
        log.info("program ended", extra={"target": target, "status": status})
        if owner is not None:
            owner.tell({"event": "ended", "target": target, "status": status})

    # --- losing the server

    def heard(self) -> None:
        """The server said something."""
        self._heard = self._clock()

    def met(self, owner: Owner) -> None:
        """A connection is there."""
        self._present.add(owner)
        self.heard()

    def lost(self, owner: Owner) -> None:
        """The connection is gone: hang up its programs, and put a fence around its kernels."""
        self._present.discard(owner)
        for target in [target for target, mine in self._owners.items() if mine is owner]:
            self._owners[target] = None
            if not self._programs[target].attached:
                self._programs[target].let_go()  # the others: their channel tells them
        self._unclaimed([kernel for kernel in self._kernels.values() if kernel.owner is owner])

    def _unclaimed(self, kernels: list[WorkerKernel]) -> None:
        for kernel in kernels:
            kernel.owner = None
        if kernels and not self._ending:
            silent = self._silent_seconds()
            log.warning("the server is gone", extra={"kernels": len(kernels), "seconds": round(silent, 1)})
            self._spawn(self._fence(kernels, silent))

    def _silent_seconds(self) -> float:
        """How long ago the server was certainly there."""
        now = self._clock()
        if now - self._looked > LOOK_SECONDS + STALL_SECONDS:
            return now - min(self._heard, self._looked)
        began, ended = self._stood_still
        return now - min(self._heard, began if now - ended < STALL_MEMORY_SECONDS else now)

    async def _fence(self, kernels: list[WorkerKernel], silent_seconds: float) -> None:
        begun = self._clock() - silent_seconds
        await self._sleep_until(begun + self._fence_seconds * SAVING_SHARE)
        lonely = [kernel for kernel in kernels if kernel.owner is None]
        for kernel in lonely:
            await kernel.ask_to_save()
        await self._sleep_until(begun + self._fence_seconds)
        for kernel in lonely:
            await kernel.kill()

    async def _sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._clock()))

    async def look_after(self) -> None:
        """Collect orphans that have ended, and notice when this process stood still. Until cancelled."""
        while True:
            self._looked = self._clock()
            await asyncio.sleep(LOOK_SECONDS)
            if self._clock() - self._looked > LOOK_SECONDS + STALL_SECONDS:
                self._stood_still = (self._looked, self._clock())
            for target, one in list(self._programs.items()):
                if one.over:
                    self._programs.pop(target)
            reap()

    # --- the end

    async def end(self) -> None:
        """Ask everything to end, within the grace; kill what stays; leave nothing."""
        self._ending = True
        deadline = self._clock() + _within(self._grace_seconds)
        for one in list(self._programs.values()):
            await one.terminate()
        for kernel in self.kernels():
            await kernel.ask_to_save()
        waited: list[asyncio.Future[int]] = [one.exited for one in self.kernels()]
        waited += [one.exited for one in self._programs.values()]
        if waited:
            await asyncio.wait(waited, timeout=max(0.0, deadline - self._clock()))
        for kernel in self.kernels():
            await kernel.kill()
        kill_all()
        await asyncio.sleep(LAST_WORDS_SECONDS)  # the ends are told, the last output goes out
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _within(grace_seconds: float) -> float:
    """The part of the grace that saving may use: the rest is for the killing and the goodbye."""
    return max(0.0, grace_seconds - min(5.0, max(0.5, grace_seconds * 0.1)))
