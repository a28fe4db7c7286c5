"""Asks the hub whose token it is, and remembers the answer for seconds only.

Promises: a token that the hub does not know (any more) is refused at once where it was never seen, and
within `CACHE_SECONDS` where it was; a hub that does not answer is `Unavailable`, never a server error; what
is remembered is bounded and holds digests, no tokens; many requests with one token ask once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import httpx
import structlog

from gpuhub.api.identity import Identity, read_identity
from gpulease.errors import NotSignedIn, Unavailable

CACHE_SECONDS = 10.0
CACHE_SIZE = 2048
ASK_SECONDS = 5.0
ASKS_AT_ONCE = 16
"""A flood of forged tokens must not become a flood at the hub."""
MAX_TOKEN = 512

log = structlog.get_logger(__name__)


class HubTokens:
    """Turns tokens into identities. ``transport`` is httpx's own port."""

    def __init__(
        self,
        hub_api_url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        cache_seconds: float = CACHE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=hub_api_url.rstrip("/"), timeout=ASK_SECONDS, trust_env=False, transport=transport
        )
        self._clock, self._cache_seconds = clock, cache_seconds
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Identity]] = {}
        self._turns = asyncio.Semaphore(ASKS_AT_ONCE)

    async def close(self) -> None:
        for task in list(self._asking.values()):
            task.cancel()
        await self._http.aclose()

    async def identify(self, token: str, *, afresh: bool = False) -> Identity:
        """Return who it is. Raises `NotSignedIn`, `Unavailable`. ``afresh``: not from memory."""
        if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise _refused()
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and not afresh and self._clock() - known[0] < self._cache_seconds:
            return known[1]
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.create_task(self._ask(token, digest))
            self._asking[digest] = task
            task.add_done_callback(lambda done: self._asked(digest, done))
        # Shared by several requests: one that goes away must not take the answer from the others.
        return await asyncio.shield(task)

    def forget(self, token: str) -> None:
        """Forget at once (signing out)."""
        self._known.pop(hashlib.sha256(token.encode()).digest(), None)

    def _asked(self, digest: bytes, done: asyncio.Task[Identity]) -> None:
        self._asking.pop(digest, None)
        if not done.cancelled():
            # Looked at here too: everybody who waited for it may have gone.
            done.exception()

    async def _ask(self, token: str, digest: bytes) -> Identity:
        async with self._turns:
            asked = self._clock()
            try:
                response = await self._http.get("/user", headers={"Authorization": f"token {token}"})
            except httpx.HTTPError as error:
                raise _away(str(error) or type(error).__name__) from error
        if response.status_code in (401, 403):
            self._known.pop(digest, None)
            raise _refused()
        if response.status_code != 200:
            raise _away(f"status {response.status_code}")
        try:
            identity = read_identity(response.json())
        except ValueError as error:
            raise _away("its answer cannot be read") from error
        self._known[digest] = (asked, identity)
        self._known.move_to_end(digest)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return identity


def _refused() -> NotSignedIn:
    return NotSignedIn("The token is not (or no longer) valid.")


def _away(why: str) -> Unavailable:
    log.warning("the hub cannot be asked who somebody is", why=why)
    return Unavailable("The hub does not answer at the moment, so nobody can be let in.")
