"""Orders to the backend, beside the loop that decides: one at a time per key, fewer when they fail.

The loop asks for the same thing at every look until it is so. The queue makes one order of that, and
after a failure waits longer each time before it takes the same key again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
AT_ONCE = 8
"""Orders that run at the same time: a hundred leases that end together must not flood the backend."""

Key = tuple[str, str]
"""(what, lease id)"""


@dataclass
class _Failed:
    times: int
    not_before: float


class WorkQueue:
    """Runs jobs by key. A job that raises is logged and asked for again by whoever still wants it."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        on_done: Callable[[], None] = lambda: None,
        on_failure: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._monotonic = monotonic
        self._on_done, self._on_failure = on_done, on_failure
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._failed: dict[Key, _Failed] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    def add(self, key: Key, job: Callable[[], Awaitable[None]]) -> bool:
        """Start ``job`` unless one of this key runs or has just failed. Return whether it was taken."""
        failed = self._failed.get(key)
        if key in self._running or (failed is not None and self._monotonic() < failed.not_before):
            return False
        self._running[key] = asyncio.create_task(self._run(key, job), name=f"order-{key[0]}-{key[1]}")
        return True

    def pending(self, key: Key) -> bool:
        """Whether a job of this key runs or waits for its turn."""
        return key in self._running

    def leases(self) -> set[str]:
        """Return the leases that have a job."""
        return {key[1] for key in self._running}

    def forget(self, lease_id: str) -> None:
        """Drop the memory of failures of a lease that has ended."""
        for key in [key for key in self._failed if key[1] == lease_id]:
            del self._failed[key]

    async def settle(self) -> None:
        """Wait for what runs now."""
        await asyncio.gather(*list(self._running.values()), return_exceptions=True)

    async def close(self) -> None:
        """Cancel what runs and wait for it."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    async def _run(self, key: Key, job: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._places:
                await job()
            self._failed.pop(key, None)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            times = min(self._failed[key].times + 1 if key in self._failed else 1, 20)
            wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (times - 1))
            self._failed[key] = _Failed(times, self._monotonic() + wait)
            log.warning("%s of lease %s failed (%d): %s", key[0], key[1], times, error)
            self._on_failure(key[0])
        finally:
            self._running.pop(key, None)
            self._on_done()
