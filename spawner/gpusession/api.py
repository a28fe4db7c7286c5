"""The session's REST interface and event stream, for browsers and scripts.

Served by the Jupyter server under ``{base_url}gpuhub/api/v1/``. Promises: nobody gets in whom
Jupyter's own kernels interface would not let in; every body is checked against its model and its
size; every refusal is an `ErrorBody`; looking never counts as activity.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from pydantic import BaseModel, ValidationError
from tornado import web
from tornado.iostream import StreamClosedError

from gpulease import errors
from gpulease.client import KEEPALIVE_SECONDS
from gpulease.events import encode
from gpulease.models import MAX_BODY_BYTES, Incoming
from gpulease.session import (
    GpuOn,
    PlacementRequest,
    RebuildRequest,
    RestoreRequest,
    SnapshotList,
    SnapshotRequest,
)
from gpusession.activity import Activity
from gpusession.session import Session

log = logging.getLogger(__name__)

PREFIX = "gpuhub/api/v1"
AUTH_RESOURCE = "kernels"
"""Who may use a server's kernels may use this: it gives no right beyond running code there."""

Body = TypeVar("Body", bound=Incoming)
Method = Callable[..., Awaitable[None]]


def _answers(method: Method) -> Any:
    """Signed in, allowed, and with every error of ours in its wire form."""

    @web.authenticated
    @authorized
    @functools.wraps(method)
    async def wrapped(self: Resource, *args: str) -> None:
        try:
            await method(self, *args)
        except errors.GpuhubError as error:
            self.refuse(error)
        except ValidationError as error:
            self.refuse(_bad_request(error))

    return wrapped


class Resource(APIHandler):
    """What all resources share."""

    auth_resource = AUTH_RESOURCE

    def initialize(self, session: Session, activity: Activity) -> None:
        self.session, self.activity = session, activity

    async def prepare(self) -> None:  # type: ignore[override]
        self._track_activity = self.request.method not in ("GET", "HEAD", "OPTIONS")
        await super().prepare()

    def body(self, model: type[Body]) -> Body:
        """Raises TooLarge, ValidationError."""
        if len(self.request.body) > MAX_BODY_BYTES:
            raise errors.TooLarge(f"The request is larger than {MAX_BODY_BYTES} bytes.")
        return model.model_validate_json(self.request.body or b"{}")

    def answer(self, data: BaseModel | dict[str, Any] | None, status: int = 200) -> None:
        self.set_status(204 if data is None else status)
        if data is None:
            self.finish()
        else:
            self.finish(json.dumps(data) if isinstance(data, dict) else data.model_dump_json())

    def refuse(self, error: errors.GpuhubError) -> None:
        self.set_status(error.status)
        self.finish(json.dumps(error.as_dict(), default=str))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Refusals by Jupyter itself (not signed in, no such path) have our form too."""
        error = errors.from_dict(None, status=status_code)
        self.set_header("Content-Type", "application/json")
        words = {403: "You are not signed in here, or may not do this.", 404: "There is no such thing here."}
        body = {**error.as_dict(), "message": words.get(status_code, error.message)}
        self.finish(json.dumps(body))


class StatusResource(Resource):
    @_answers
    async def get(self) -> None:
        self.answer(await self.session.call(self.session.status()))


class KernelsResource(Resource):
    @_answers
    async def get(self) -> None:
        status = await self.session.call(self.session.status())
        self.answer({"kernels": [kernel.model_dump(mode="json") for kernel in status.kernels]})


class KernelResource(Resource):
    @_answers
    async def get(self, kernel_id: str) -> None:
        self.answer(await self.session.call(self.session.kernel_status(kernel_id)))


class PlacementResource(Resource):
    @_answers
    async def put(self, kernel_id: str) -> None:
        wish = self.body(PlacementRequest)
        work = self.session.ask(kernel_id, wish.placement, consent=wish.left == "accept", pool=wish.pool)
        self.answer(await self.session.call(work), 202)


class MoveResource(Resource):
    @_answers
    async def delete(self, kernel_id: str) -> None:
        self.answer(await self.session.call(self.session.cancel(kernel_id)), 202)


class KernelSnapshotsResource(Resource):
    @_answers
    async def get(self, kernel_id: str) -> None:
        status = await self.session.call(self.session.kernel_status(kernel_id))
        found = await self.session.call(self.session.states.list())
        self.answer(
            SnapshotList(
                snapshots=[
                    one
                    for one in found
                    if one.kernel == kernel_id or (status.notebook and one.notebook == status.notebook)
                ]
            )
        )

    @_answers
    async def post(self, kernel_id: str) -> None:
        wish = self.body(SnapshotRequest)
        work = self.session.states.save(kernel_id, consent=wish.left == "accept")
        self.answer(await self.session.call(work), 201)


class SnapshotsResource(Resource):
    @_answers
    async def get(self) -> None:
        self.answer(SnapshotList(snapshots=await self.session.call(self.session.states.list())))


class SnapshotResource(Resource):
    @_answers
    async def get(self, snapshot_id: str) -> None:
        self.answer(await self.session.call(self.session.states.find(snapshot_id)))

    @_answers
    async def delete(self, snapshot_id: str) -> None:
        await self.session.call(self.session.states.delete(snapshot_id))
        self.answer(None)


class CompareResource(Resource):
    @_answers
    async def get(self, first: str, second: str) -> None:
        self.answer(await self.session.call(self.session.states.compare(first, second)))


class RestoreResource(Resource):
    @_answers
    async def post(self, kernel_id: str) -> None:
        wish = self.body(RestoreRequest)
        self.answer(
            await self.session.call(self.session.states.restore(kernel_id, wish.snapshot, wish.names))
        )


class RebuildResource(Resource):
    """Cells to run again: look at them first, then agree to them by their numbers."""

    @_answers
    async def get(self, kernel_id: str) -> None:
        names = self.get_query_arguments("name", strip=False) or None
        if names is not None and (len(names) > 10_000 or any(len(one) > 1000 for one in names)):
            raise errors.BadRequest("These are too many names, or one is too long.")
        self.answer(await self.session.call(self.session.states.rebuild_plan(kernel_id, names)))

    @_answers
    async def post(self, kernel_id: str) -> None:
        wish = self.body(RebuildRequest)
        self.answer(await self.session.call(self.session.states.rebuild(kernel_id, wish)))


class NoticeResource(Resource):
    @_answers
    async def delete(self, kernel_id: str, notice_id: str) -> None:
        self.answer(await self.session.call(self.session.dismiss(kernel_id, notice_id)))


class LeaseResource(Resource):
    @_answers
    async def post(self) -> None:
        wish = self.body(GpuOn)
        self.answer(await self.session.call(self.session.gpu_on(wish.pool, wish.gpus)), 202)

    @_answers
    async def delete(self) -> None:
        self.answer(await self.session.call(self.session.release()), 202)


class KeepResource(Resource):
    @_answers
    async def post(self) -> None:
        self.answer(await self.session.call(self.session.keep()))


class UsageResource(Resource):
    @_answers
    async def get(self) -> None:
        self.answer(await self.session.call(self.session.usage()))


class ActivityResource(Resource):
    @_answers
    async def get(self) -> None:
        self.answer(await self.activity.report())


class EventsResource(Resource):
    """Server-Sent Events: a status at once, then what changes."""

    @_answers
    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")
        feed = Feed(asyncio.get_running_loop())
        leave = self.session.subscribe(feed.put)
        try:
            status = await self.session.call(self.session.status())
            self.write(encode("status", status.model_dump_json()))
            await self.flush()
            while not self.request.connection.stream.closed():  # type: ignore[union-attr]
                events = await feed.take(KEEPALIVE_SECONDS)
                self.write("".join(encode(kind, data) for kind, data in events) or ": still here\n\n")
                await self.flush()
        except StreamClosedError:
            log.debug("a browser left the stream of events")
        finally:
            leave()

    def on_connection_close(self) -> None:
        super().on_connection_close()


class Feed:
    """What one reader has not read yet: the newest event of each kind and key, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[tuple[str, str], str] = {}
        self._some = asyncio.Event()

    def put(self, kind: str, key: str, data: str) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, kind, key, data)

    def _put(self, kind: str, key: str, data: str) -> None:
        self._waiting.pop((kind, key), None)
        self._waiting[kind, key] = data
        self._some.set()

    async def take(self, patience_seconds: float) -> list[tuple[str, str]]:
        """Return (kind, data) of everything new; empty when nothing came in time."""
        try:
            await asyncio.wait_for(self._some.wait(), patience_seconds)
        except TimeoutError:
            return []
        self._some.clear()
        waiting, self._waiting = self._waiting, {}
        return [(kind, data) for (kind, _), data in waiting.items()]


class Missing(Resource):
    @_answers
    async def get(self) -> None:
        raise errors.NotFound("There is no such thing here.")

    post = put = delete = get


def routes(base_url: str, session: Session, activity: Activity) -> list[tuple[str, type, dict[str, Any]]]:
    """Return tornado's routes for everything above."""
    given = {"session": session, "activity": activity}
    kernel, one = r"kernels/([^/]+)", r"([^/]+)"
    table: list[tuple[str, type[Resource]]] = [
        ("status", StatusResource),
        ("kernels", KernelsResource),
        (kernel, KernelResource),
        (f"{kernel}/placement", PlacementResource),
        (f"{kernel}/move", MoveResource),
        (f"{kernel}/snapshots", KernelSnapshotsResource),
        (f"{kernel}/restore", RestoreResource),
        (f"{kernel}/rebuild", RebuildResource),
        (f"{kernel}/notices/{one}", NoticeResource),
        ("snapshots", SnapshotsResource),
        (f"snapshots/{one}", SnapshotResource),
        (f"snapshots/{one}/compare/{one}", CompareResource),
        ("lease", LeaseResource),
        ("lease/keep", KeepResource),
        ("usage", UsageResource),
        ("activity", ActivityResource),
        ("events", EventsResource),
        (".*", Missing),
    ]
    start = base_url.rstrip("/") + "/" + PREFIX
    return [(f"{start}/{path}", handler, given) for path, handler in table]


def _bad_request(error: ValidationError) -> errors.BadRequest:
    problems = [
        {"field": ".".join(str(part) for part in one["loc"]) or "body", "problem": one["msg"]}
        for one in error.errors(include_url=False, include_input=False)
    ]
    first = problems[0]
    return errors.BadRequest(f"{first['field']}: {first['problem']}.", problems=problems)
