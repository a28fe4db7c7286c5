"""Whether the server that a lease belongs to still runs.

A lease whose server is gone ends; a lease whose browser is closed does not. One odd look ends
nothing: a server counts as gone after several looks, some time apart, and only if it was ever seen
(a script may hold a lease without a server).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpuhub.backends.base import Backend, BackendError

LOOK_SECONDS = 5.0
GONE_SECONDS = 10.0
GONE_LOOKS = 2
LOOKS_AT_ONCE = 8
"""Looks per round: with thousands in the queue each is looked at more rarely, and nothing is flooded."""

Server = tuple[str, str]
"""(user, server)"""

log = logging.getLogger(__name__)


@dataclass
class _Seen:
    looked_at: float
    running: bool | None
    absent_since: float | None = None
    absent_looks: int = 0


class Presence:
    """What is known of servers, by looking every few seconds."""

    def __init__(self, backend: Backend, monotonic: Callable[[], float]) -> None:
        self._backend = backend
        self._monotonic = monotonic
        self._seen: dict[Server, _Seen] = {}

    def running(self, server: Server) -> bool | None:
        """Return what the last look said; None: nobody looked, or it cannot be told."""
        seen = self._seen.get(server)
        return None if seen is None else seen.running

    def gone(self, server: Server) -> bool:
        """Whether it was missing in several looks over some time."""
        seen = self._seen.get(server)
        if seen is None or seen.absent_since is None:
            return False
        return seen.absent_looks >= GONE_LOOKS and seen.looked_at - seen.absent_since >= GONE_SECONDS

    async def look(self, servers: Iterable[Server]) -> None:
        """Look at those whose last look is old, oldest first; forget those that nobody asks about."""
        now = self._monotonic()
        asked = set(servers)
        self._seen = {server: seen for server, seen in self._seen.items() if server in asked}
        due = sorted(
            (self._seen[server].looked_at if server in self._seen else -1.0, server)
            for server in asked
            if server not in self._seen or now - self._seen[server].looked_at >= LOOK_SECONDS
        )
        await asyncio.gather(*(self._look(server) for _, server in due[:LOOKS_AT_ONCE]))

    async def _look(self, server: Server) -> None:
        try:
            running = await self._backend.server_running(*server)
        except BackendError as error:
            log.info("whether a server runs cannot be told: %s", error)
            running = None
        now = self._monotonic()
        seen = self._seen.setdefault(server, _Seen(now, None))
        seen.looked_at, seen.running = now, running
        if running is False:
            seen.absent_since = now if seen.absent_since is None else seen.absent_since
            seen.absent_looks += 1
        else:
            seen.absent_since, seen.absent_looks = None, 0
