"""The server stops: every kernel with variables is saved where it is, all at once.

Promises: within the time that is left, a running cell may finish during a part of it and is
interrupted then; what goes wrong with one kernel never keeps the others from being saved; the
summary tells the broker that the worker may stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from typing import Any

from gpulease import errors
from gpulease.models import KernelReturn
from gpusession.kernel import Kernel

log = logging.getLogger(__name__)

STOP_PATIENCE_SHARE = 0.15
"""The share of the time for stopping during which a running cell may still finish."""


async def save_all(kernels: Sequence[Kernel], within_seconds: float) -> list[KernelReturn]:
    """Save them; returns what became of each that has variables. Never raises for one kernel."""
    returns = await asyncio.gather(*(_save(kernel, within_seconds) for kernel in kernels))
    return [one for one in returns if one is not None]


async def _save(kernel: Kernel, within_seconds: float) -> KernelReturn | None:
    running = kernel.endpoint.running
    if not kernel.carries_state or running is None or running.exited.done():
        return None
    outcome = "lost"
    saved: dict[str, Any] = {}
    with contextlib.suppress(errors.GpuhubError):
        kernel.cancel()
    try:
        async with asyncio.timeout(within_seconds):
            await kernel.settled()
            await kernel.endpoint.hold()
            await _drain(kernel, within_seconds * STOP_PATIENCE_SHARE)
            saved = await kernel.save("server-stop")
            outcome = "saved"
    except (errors.GpuhubError, TimeoutError) as error:
        log.warning("kernel %s could not be saved before the stop: %s", kernel.id, error)
    verdicts = saved.get("verdicts", [])
    return KernelReturn.model_validate(
        {
            "kernel": kernel.id,
            "notebook": kernel.notebook or "",
            "outcome": outcome,
            "bytes": saved.get("bytes", 0),
            "kept": sum(one["verdict"] != "left" for one in verdicts),
            "left": sum(one["verdict"] == "left" for one in verdicts),
        }
    )


async def _drain(kernel: Kernel, patience_seconds: float) -> None:
    while True:
        try:
            await kernel.endpoint.drain(timeout_seconds=patience_seconds)
            return
        except TimeoutError:
            running = kernel.endpoint.running
            if running is None or running.exited.done():
                return
            log.info("kernel %s: its cell is interrupted, the server stops", kernel.id)
            await running.signal(signal.SIGINT)
            patience_seconds = 5.0
