"""A kernel that runs its cells on a GPU only, and asks for one by itself.

Exists for programs that have no switch to flip (nbclient, papermill, a console, VS Code): they
choose the kernel spec "… (GPU)". Promises: its start asks for a GPU; cells wait for it, and while
they wait the reason is written under the first of them; where none is to be had that cell fails
with the reason, and the next cell asks again; when the GPU is taken back (idle, say), the next cell
asks again too, unless the person himself turned it off.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from gpulease import errors
from gpulease.session import KernelStatus
from gpusession.kernels.ports import RunningKernel
from gpusession.kernels.relay import Relay

LOOK_SECONDS = 0.2
QUIET_SECONDS = 1.0
"""A wait that is over sooner is not worth a line in the notebook."""


class Asking(Protocol):
    """The session, as far as a kernel that asks by itself needs it."""

    async def ask(
        self, kernel_id: str, placement: Any, *, consent: bool = False, pool: str | None = None
    ) -> KernelStatus: ...

    async def kernel_status(self, kernel_id: str) -> KernelStatus: ...


class AutoGpu:
    """Made before the kernel starts; `begin` and `end` on the session's loop."""

    def __init__(self, relay: Relay, session: Asking) -> None:
        self._relay, self._session = relay, session
        self._wanted = asyncio.Event()
        self._said = False
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        relay.cells_wait_for_gpu(True)

    async def begin(self) -> None:
        self._relay.on_switch = self._switched
        self._relay.on_waiting_cell = self._wanted.set
        self._wanted.set()
        self._task = asyncio.create_task(self._follow(), name=f"auto-gpu-{self._relay.kernel_id}")

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._get()
            except errors.NotFound:
                return
            except errors.GpuhubError as error:
                with contextlib.suppress(errors.Unavailable):
                    await self._relay.fail_waiting("NoGpu", f"{error.message} {error.hint}".strip())

    async def _get(self) -> None:
        loop = asyncio.get_running_loop()
        said, shown, since = "", "", loop.time()
        status = await self._session.ask(self._relay.kernel_id, "worker")
        while status.placement != "worker":
            move = status.move
            if move is None:
                return
            if move.ended_at is not None:
                await self._relay.fail_waiting("NoGpu", move.message)
                return
            if move.message != shown:
                shown, since = move.message, loop.time()
            if shown != said and move.step in ("waiting", "starting") and loop.time() - since > QUIET_SECONDS:
                said = shown
                self._relay.say(f"{shown}\n")
                self._said = True
            await asyncio.sleep(LOOK_SECONDS)
            status = await self._session.kernel_status(self._relay.kernel_id)

    def _switched(self, running: RunningKernel) -> None:
        if running.placement == "worker":
            if self._said:
                self._said = False
                self._relay.say("The notebook runs on the GPU now.\n")
            self._relay.cells_wait_for_gpu(False)
            return
        # Set at once, so that no cell slips through; taken off again if the person wanted it so.
        self._relay.cells_wait_for_gpu(True)
        task = asyncio.get_running_loop().create_task(self._why_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _why_back(self) -> None:
        with contextlib.suppress(errors.GpuhubError):
            move = (await self._session.kernel_status(self._relay.kernel_id)).move
            if move is not None and move.target == "server" and move.asked:
                self._relay.cells_wait_for_gpu(False)


def wants_gpu(kernel_spec: Any) -> bool:
    """Whether a kernel spec says that its cells run on a GPU."""
    ours = (kernel_spec.metadata or {}).get("gpuhub")
    return isinstance(ours, dict) and ours.get("placement") == "worker"
