"""Who may speak for a node: the agent that Kubernetes itself says runs there.

An agent shows the token that the kubelet gave its pod. Promises: the cluster's API decides whether the
token is good, made for us (its audience), whose it is and on which node its pod runs; an answer is
remembered for `CACHE_SECONDS`, by digest, in bounded memory; an API that does not answer is `Unavailable`,
and lets nobody in.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from fastapi import Request
from fastapi.security.utils import get_authorization_scheme_param

from gpuhub.backends.base import BackendError
from gpuhub.telemetry.pushed import PushedTelemetry
from gpulease.errors import NotAllowed, NotSignedIn, Unavailable

AUDIENCE = "gpuhub-broker"
CACHE_SECONDS = 30.0
"""How long a token that was taken back may still be used. A pod that is gone has no token any more."""
CACHE_SIZE = 4096
"""Nodes of the largest cluster that Kubernetes promises to carry, nearly."""
REVIEWS_AT_ONCE = 8
"""A flood of forged tokens must not become a flood at the cluster's API."""
REVIEW_SECONDS = 5.0
MAX_TOKEN = 8192

log = structlog.get_logger(__name__)


class Reviewed(Protocol):
    """What the cluster's API says of a good token."""

    @property
    def username(self) -> str: ...
    @property
    def node(self) -> str | None: ...


Review = Callable[[str, str], Awaitable[Reviewed | None]]
"""``review(token, audience)``: None for a token that is not good. Raises `BackendError` for no answer."""


class AgentGate(Protocol):
    """Decides who may speak for a node."""

    async def admit(self, token: str, node: str) -> None:
        """Return if it may. Raises `NotSignedIn`, `NotAllowed`, `Unavailable`."""


@dataclass(frozen=True)
class Agents:
    """The nodes' way into the broker: who may come in, and where what they say goes."""

    gate: AgentGate
    telemetry: PushedTelemetry


class TokenReviewGate:
    """The gate of a cluster. ``service_account``: ``system:serviceaccount:NAMESPACE:NAME`` of the agents."""

    def __init__(
        self,
        review: Review,
        *,
        service_account: str,
        audience: str = AUDIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._review, self._service_account, self._audience = review, service_account, audience
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Reviewed | None]] = OrderedDict()
        self._turns = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def admit(self, token: str, node: str) -> None:
        if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise _refused()
        who = await self._reviewed(token)
        if who is None:
            raise _refused()
        if who.username != self._service_account:
            raise NotAllowed("Only the node agents of this gpuhub may report GPUs.", hint=_HINT)
        if who.node != node:
            raise NotAllowed(f"This agent runs on another node than {node}.", hint=_HINT)

    async def _reviewed(self, token: str) -> Reviewed | None:
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() - known[0] < CACHE_SECONDS:
            return known[1]
        async with self._turns:
            known = self._known.get(digest)  # somebody else may have asked meanwhile
            if known is not None and self._clock() - known[0] < CACHE_SECONDS:
                return known[1]
            asked = self._clock()
            try:
                async with asyncio.timeout(REVIEW_SECONDS):
                    who = await self._review(token, self._audience)
            except (BackendError, TimeoutError) as error:
                log.warning("the cluster cannot be asked whose token it is", why=str(error) or "no answer")
                raise Unavailable(
                    "The cluster does not answer at the moment, so no agent is let in."
                ) from error
        self._known[digest] = (asked, who)
        self._known.move_to_end(digest)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return who


_HINT = "Check the agent's service account and GPUHUB_NODE against the chart's."


def bearer(request: Request) -> str:
    """Return the token of an agent's request. Raises `NotSignedIn`."""
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() != "bearer":
        raise NotSignedIn("The Authorization header must be 'Bearer' and the agent's token.", hint=_HINT)
    return token


def _refused() -> NotSignedIn:
    return NotSignedIn("The agent's token is not (or no longer) valid.", hint=_HINT)
