"""The only place where an error becomes a status: everything that is refused has the form `ErrorBody`.

Promises: an error of `gpulease.errors` keeps its class on the far side; the framework's own refusals
(no such path, wrong method, a body that is no JSON, unknown fields) read the same; anything else is
logged with its traceback and shown as nothing but a sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuhub.store import DATABASE_AWAY
from gpulease.errors import BadRequest, GpuhubError, InvalidOption, NotFound, NotSignedIn, Unavailable

MAX_PROBLEMS = 20
"""Problems of one body that are listed; a hostile body could have thousands."""

INTERNAL = {
    "code": "internal",
    "message": "The GPU service made a mistake. It was logged.",
    "hint": GpuhubError.default_hint,
    "details": {},
}

log = structlog.get_logger(__name__)


def answer(error: GpuhubError) -> JSONResponse:
    """Return the response that ``error`` becomes."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, NotSignedIn):
        headers["WWW-Authenticate"] = 'Bearer realm="gpuhub"'
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "2"
    return JSONResponse(error.as_dict(), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Give ``app`` these answers."""
    app.add_exception_handler(GpuhubError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, _database_away)
    app.add_exception_handler(Exception, _unforeseen)


async def _known(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, GpuhubError)
    if error.status >= 500:
        log.warning("refused", code=error.code, why=error.message)
    return answer(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(from_problems(error.errors()))


def from_problems(problems: Sequence[Mapping[str, Any]]) -> GpuhubError:
    """Return the error for what pydantic found. What was sent is never sent back."""
    listed = [
        {
            "where": ".".join(str(part) for part in problem["loc"][1:])[:200],
            "problem": str(problem["msg"])[:300],
        }
        for problem in problems[:MAX_PROBLEMS]
    ]
    first = problems[0] if problems else {"type": "", "loc": ()}
    if first["type"] == "json_invalid":
        return BadRequest("The body is not valid JSON.", problems=listed)
    if first["type"] == "extra_forbidden":
        return BadRequest(f"The request has an unknown field: {listed[0]['where']}.", problems=listed)
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return BadRequest("The request needs a JSON body (Content-Type: application/json).", problems=listed)
    if not listed or not listed[0]["where"]:
        return BadRequest("The body must be a JSON object (Content-Type: application/json).", problems=listed)
    return InvalidOption(f"{listed[0]['where']}: {_sentence(listed[0]['problem'])}", problems=listed)


async def _framework(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answer(NotFound("There is nothing at this address.", hint=BadRequest.default_hint))
    if error.status_code == 405:
        refusal = answer(BadRequest("This address does not take that method."))
        refusal.status_code = 405
        refusal.headers.update(error.headers or {})
        return refusal
    return answer(BadRequest("The request cannot be understood."))


async def _database_away(_request: Request, error: Exception) -> JSONResponse:
    log.error("the database does not answer", why=str(error)[:500])
    return answer(Unavailable("The GPU service cannot reach its database at the moment."))


async def _unforeseen(_request: Request, _error: Exception) -> JSONResponse:
    # The framework raises it again after this answer; `LastResort` logs it.
    return JSONResponse(INTERNAL, status_code=500)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


class LastResort:
    """Outermost: logs each request once; what nobody foresaw is logged whole and shown as one sentence."""

    def __init__(self, app: ASGIApp, *, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._app, self._stopwatch = app, stopwatch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._stopwatch(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # Without the query: nothing that somebody may have put there by mistake gets into a log.
        where = {"method": scope["method"], "path": scope["path"][:200]}
        try:
            await self._app(scope, receive, watched)
        except Exception:
            log.exception("internal error", **where)
            if not status:
                await JSONResponse(INTERNAL, status_code=500)(scope, receive, watched)
        finally:
            log.info(
                "request", **where, status=status, milliseconds=round(1000 * (self._stopwatch() - began))
            )
