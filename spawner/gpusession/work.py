"""What runs in a session: tells its followers and the broker, each once, when a relay says that it changed.

Exists so that nobody has to look again and again. Promises: what is over within ``news_seconds`` is no
news; while a cell or a program runs on the GPU the broker hears so again before it forgets, and once
that none does any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from gpusession.kernel import Kernel


class Work:
    """All methods run on the session's loop."""

    def __init__(
        self,
        kernels: Mapping[str, Kernel],
        *,
        touch: Callable[[str], None],
        hint: Callable[[bool], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        news_seconds: float,
        hint_seconds: float,
    ) -> None:
        self._kernels, self._touch, self._hint, self._spawn = kernels, touch, hint, spawn
        self._news_seconds, self._hint_seconds = news_seconds, hint_seconds
        self._programs: set[str] = set()
        self._lasting: dict[str, asyncio.TimerHandle] = {}
        """Kernels that run something, of which nobody has heard yet."""
        self._told: set[str] = set()
        self._hinting = False
        self._rests = asyncio.Event()

    def changed(self, kernel_id: str) -> None:
        """A kernel began or ended to run something, or to wait for an answer; or it is gone."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None and kernel.endpoint.in_flight is not None:
            if kernel_id not in self._told and kernel_id not in self._lasting:
                loop = asyncio.get_running_loop()
                self._lasting[kernel_id] = loop.call_later(self._news_seconds, self._lasts, kernel_id)
        else:
            timer = self._lasting.pop(kernel_id, None)
            if timer is not None:
                timer.cancel()
            if kernel_id in self._told:
                self._told.remove(kernel_id)
                self._touch(kernel_id)
        self._look()

    def begins(self, program: str) -> None:
        """A program runs on the worker, as a cell does."""
        self._programs.add(program)
        self._look()

    def ends(self, program: str) -> None:
        self._programs.discard(program)
        self._look()

    def _lasts(self, kernel_id: str) -> None:
        del self._lasting[kernel_id]
        self._told.add(kernel_id)
        self._touch(kernel_id)

    # --- the broker

    def _look(self) -> None:
        if not self._on_gpu():
            self._rests.set()
        elif not self._hinting:
            self._hinting = True
            self._spawn(self._tell_broker(), "cells")

    def _on_gpu(self) -> bool:
        return bool(self._programs) or any(
            kernel.placement == "worker"
            and kernel.endpoint.in_flight is not None
            and not kernel.endpoint.waits_for_input
            for kernel in self._kernels.values()
        )

    async def _tell_broker(self) -> None:
        said = False
        try:
            await asyncio.sleep(self._news_seconds)
            while self._on_gpu():
                await self._hint(said := True)
                self._rests.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._rests.wait(), self._hint_seconds)
                if not self._on_gpu():
                    await asyncio.sleep(self._news_seconds)  # another cell may come
            if said:
                await self._hint(False)
        finally:
            self._hinting = False
        self._look()
