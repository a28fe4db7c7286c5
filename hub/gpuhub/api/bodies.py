"""No body over `MAX_BODY_BYTES` gets any further, whether it says its length or not.

Bodies are small here, so each is read whole before anything looks at it; then nothing behind this
door can be fed slowly or without end.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuhub.api.errors import answer
from gpulease.errors import BadRequest, GpuhubError, TooLarge
from gpulease.models import MAX_BODY_BYTES

BODY_SECONDS = 20.0
"""A body of 64 KiB that takes longer is not on its way at all."""


DISCARDED_BYTES = 8 * 1024 * 1024
DISCARD_SECONDS = 2.0
"""Of a body that is too large, so much is still taken off the line and thrown away: a proxy sends it whole
before it listens to an answer. What is larger, or slower, is cut off."""


class BodyLimit:
    """ASGI middleware: reads the body, refuses a large, slow or broken-off one, hands it on."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int = MAX_BODY_BYTES, seconds: float = BODY_SECONDS
    ) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            await _refuse(BadRequest("The request's body did not arrive in time."), scope, receive, send)
            return
        except TooLarge as error:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DISCARD_SECONDS):
                    await _discard(receive)
            await _refuse(error, scope, receive, send)
            return
        if body is None:
            return
        handed_on = False

        async def replay() -> Message:
            nonlocal handed_on
            if handed_on:
                return await receive()
            handed_on = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body; None when the client went away in the middle of it."""
        said = Headers(scope=scope).get("content-length", "")
        if said.isdigit() and int(said) > self._max_bytes:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request's body is larger than {self._max_bytes // 1024} KiB.")


async def _discard(receive: Receive) -> None:
    size, more = 0, True
    while more and size < DISCARDED_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)


async def _refuse(error: GpuhubError, scope: Scope, receive: Receive, send: Send) -> None:
    response = answer(error)
    # What is still on its way is not read: the connection ends with this answer.
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
