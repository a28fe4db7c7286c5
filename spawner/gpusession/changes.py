"""Tells whoever follows a session what changed, a few times a second at most.

Exists so that a burst of steps and samples becomes few events. Promises: what is sent is read at
the moment of sending, so that the last event about anything is true.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pydantic import BaseModel

from gpulease.session import Status

FLUSH_SECONDS = 0.05
"""Changes within this time go out as one event."""

Put = Callable[[str, str, str], None]


class Changes:
    """All methods run on the session's loop."""

    def __init__(
        self,
        status: Callable[[], Awaitable[Status]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
    ) -> None:
        self._status, self._spawn = status, spawn
        self._subscribers: set[Put] = set()
        self._dirty: set[str] = set()
        self._flushing = False

    def subscribe(self, put: Put) -> Callable[[], None]:
        """``put(kind, key, json)`` is called on the session's thread at each change; returns the way out.

        A later event with the same kind and key replaces an earlier one that was not read yet.
        """
        self._subscribers.add(put)
        return lambda: self._subscribers.discard(put)

    def touch(self, kernel_id: str) -> None:
        """Something of a kernel changed ("": of the session)."""
        self._dirty.add(kernel_id)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def publish(self, kind: str, key: str, data: BaseModel | dict[str, Any]) -> None:
        """Tell it now."""
        text = json.dumps(data) if isinstance(data, dict) else data.model_dump_json()
        for put in list(self._subscribers):
            put(kind, key, text)

    def _flush(self) -> None:
        self._flushing = False
        dirty, self._dirty = self._dirty, set()
        if self._subscribers:
            self._spawn(self._tell(dirty), "status")

    async def _tell(self, dirty: set[str]) -> None:
        status = await self._status()
        for kernel in status.kernels:
            if kernel.id in dirty:
                self.publish("kernel", kernel.id, kernel)
        self.publish("status", "", status)
