"""The end of `gpuhub up`: every server and worker is asked to save, and is waited for.

First the servers (they fetch back and save what runs on GPUs), then what workers are left. Impatience
(a second Ctrl-C) ends all at once.
"""

from __future__ import annotations

import asyncio

from gpuhub.up.readable import Log
from gpulease.errors import GpuhubError
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import UnitSeen

LOOK_SECONDS = 0.3
TELL_SECONDS = 10.0
WORKER_SECONDS = 60.0


async def stop_units(
    launcher: LauncherClient, log: Log, impatient: asyncio.Event, *, server_seconds: float = 180.0
) -> bool:
    """Stop every unit; returns whether nothing is left. Never raises."""
    try:
        for kind, seconds in (("server", server_seconds), ("worker", WORKER_SECONDS)):
            units = await _running(launcher, kind)
            if units:
                log.say(_saving(kind, len(units)))
            for unit in units:
                await launcher.stop(unit.id, 0.0 if impatient.is_set() else seconds)
            if not await _wait(launcher, log, impatient, kind, seconds + 20):
                return False
    except GpuhubError as error:
        log.say(
            f"Servers could not be stopped: {error.message} They go on, and the next start finds them.",
            "error",
        )
        return False
    return True


async def _wait(
    launcher: LauncherClient, log: Log, impatient: asyncio.Event, kind: str, seconds: float
) -> bool:
    loop = asyncio.get_running_loop()
    started = told = loop.time()
    forced = impatient.is_set()
    while True:
        units = await _running(launcher, kind)
        if not units:
            return True
        now = loop.time()
        if now - started > seconds:
            log.say(f"Still running: {', '.join(unit.id for unit in units)}.", "error")
            return False
        if impatient.is_set() and not forced:
            forced = True
            log.say("Stopping at once; what was not saved by now is lost.", "warning")
            for unit in units:
                await launcher.stop(unit.id, 0.0)
        if now - told > TELL_SECONDS:
            told = now
            log.say(f"{_saving(kind, len(units))} ({now - started:.0f} s)")
        await asyncio.sleep(LOOK_SECONDS)


async def _running(launcher: LauncherClient, kind: str) -> list[UnitSeen]:
    units = await launcher.list(processes=False)
    return [unit for unit in units if unit.kind == kind and unit.phase == "running"]


def _saving(kind: str, count: int) -> str:
    what = kind if count == 1 else f"{kind}s"
    return f"saving {count} {what}… (Ctrl-C again stops at once)"
