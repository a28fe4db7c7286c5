"""What listens from the first moment on: says that the process lives, and lets in only while it leads.

Promises: ``health`` answers always; ``ready`` only where requests are really served; everything else is
503 with a hint until this broker leads, and again from the very moment at which it does not any more.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gpuhub.api.errors import answer
from gpulease.errors import Unavailable


class Gate:
    """The outermost app. ``prefix`` is the service's (``/services/gpu/``)."""

    def __init__(self, prefix: str) -> None:
        self._health, self._ready = f"{prefix}health", f"{prefix}ready"
        self._app: ASGIApp | None = None
        self._leads: Callable[[], bool] = lambda: False

    def open(self, app: ASGIApp, leads: Callable[[], bool]) -> None:
        """Let requests through to ``app`` while ``leads()``."""
        self._app, self._leads = app, leads

    def close(self) -> None:
        self._app = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        app = self._app if self._app is not None and self._leads() else None
        if path == self._health:
            await JSONResponse({"status": "ok"})(scope, receive, send)
        elif app is None:
            refusal = Unavailable(
                "This broker does not lead at the moment.",
                hint="Try again in some seconds: it is starting, or another one takes over.",
            )
            await answer(refusal)(scope, receive, send)
        elif path == self._ready:
            await JSONResponse({"status": "ready"})(scope, receive, send)
        else:
            await app(scope, receive, send)
