"""Server-Sent Events: what a reader gets, however slow, long or broken off his connection is.

Promises: a sign of life at least every `KEEPALIVE_SECONDS`; a reader that is too slow is let go, not
buffered without end (he comes back with ``Last-Event-ID`` and has missed nothing); a token that the hub
does not accept any more ends the stream within a minute; the end of the process ends it cleanly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

import structlog

from gpulease.client import KEEPALIVE_SECONDS
from gpulease.errors import GpuhubError, LimitReached, NotAllowed, NotSignedIn
from gpulease.events import Event, encode

ALIVE_SECONDS = KEEPALIVE_SECONDS * 0.6
CHECK_SECONDS = 25.0
"""How often the reader's token is looked at again."""
QUEUE = 512
"""Events that wait for one reader; a person has a handful of leases."""

READERS_AT_ONCE = 100
"""Streams of one person: every server, tab and script has one."""

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = structlog.get_logger(__name__)


class Readers:
    """Counts each person's open streams, so that one person's script cannot take them all."""

    def __init__(self, allowed: int = READERS_AT_ONCE) -> None:
        self._allowed = allowed
        self._open: Counter[str] = Counter()

    def check_room(self, user: str) -> None:
        """Raises `LimitReached`."""
        used = self._open[user]
        if used >= self._allowed:
            raise LimitReached(
                f"You follow the GPU service {used} times at once already.",
                hint="Close some tabs or scripts.",
                limit="event_streams",
                used=used,
                allowed=self._allowed,
                unit="streams",
                retry_at=None,
            )

    @contextlib.contextmanager
    def place(self, user: str) -> Iterator[None]:
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


def frame(event: Event) -> str:
    """Return ``event`` as it travels."""
    body = json.dumps({"at": event.at.isoformat(), "data": event.data}, separators=(",", ":"), default=str)
    return encode(event.kind, body, event.id)


async def stream(
    events: AsyncIterator[Event],
    *,
    check: Callable[[], Awaitable[object]],
    closing: asyncio.Event,
    alive_seconds: float = ALIVE_SECONDS,
    check_seconds: float = CHECK_SECONDS,
    queue_size: int = QUEUE,
) -> AsyncGenerator[str, None]:
    """Yield frames until the reader's token ends (`check` raises), ``closing`` is set, or events end."""
    queue: asyncio.Queue[Event | None] = asyncio.Queue(queue_size)
    jobs = [
        asyncio.create_task(_pump(events, queue), name="events"),
        asyncio.create_task(closing.wait(), name="closing"),
        asyncio.create_task(_guard(check, check_seconds), name="token"),
    ]
    try:
        yield "retry: 1000\n: welcome\n\n"
        while True:
            take = asyncio.create_task(queue.get())
            try:
                await asyncio.wait(
                    [take, *jobs[1:]], timeout=alive_seconds, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                if not take.done():
                    take.cancel()
            if any(job.done() for job in jobs[1:]):
                return
            if not take.done() or take.cancelled():
                yield ": alive\n\n"
                continue
            event = take.result()
            if event is None:
                return
            yield frame(event)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def _pump(events: AsyncIterator[Event], queue: asyncio.Queue[Event | None]) -> None:
    """Carry events to the reader's queue; a full one ends the stream once it is read."""
    try:
        async for event in events:
            if event.id is None and queue.qsize() >= queue.maxsize // 8:
                # Telemetry: only the newest counts, and the next one comes in seconds.
                continue
            if queue.full():
                log.info("a reader of events is too slow", waiting=queue.qsize())
                break
            queue.put_nowait(event)
    except GpuhubError as error:
        log.info("a stream of events was cut", why=error.message)
    except Exception:  # a database that is away: the reader comes back and goes on where he was
        log.exception("a stream of events broke")
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()
    await queue.put(None)


async def _guard(check: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Return when the token is not valid any more; a hub that is away ends nothing."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await check()
        except (NotSignedIn, NotAllowed):
            return
        except GpuhubError:
            continue
