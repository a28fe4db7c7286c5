"""What the broker's and the server's event streams carry (Server-Sent Events).

A stored event has an ``id`` that grows by commit order; a reader that comes back with
``Last-Event-ID`` gets everything that it missed, or a ``reset`` event when that is too long ago
(then it reads the present state by GET). Telemetry events have no id: only the newest counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from gpulease.models import Outgoing

EventKind = Literal["lease", "pools", "usage", "reset"]
"""lease: data is a Lease · pools: data is a PoolList · usage: data is {lease, usage, idle_seconds} ·
reset: the reader must read the present state afresh."""


class Event(Outgoing):
    """One event of the broker's stream."""

    id: int | None = None
    kind: EventKind
    at: datetime
    data: dict[str, Any]


def encode(kind: str, data: str, event_id: int | None = None) -> str:
    """Return one frame of ``text/event-stream``. ``data`` is JSON and has no line breaks."""
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {kind}\ndata: {data}\n\n"


class Decoder:
    """Turns lines of ``text/event-stream`` into (id, kind, data). Comments are keep-alives.

    Source: WHATWG HTML, "Server-sent events", the parsing steps.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._id: str | None = None
        self._kind = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> Iterator[tuple[str | None, str, str]]:
        """Take one line without its line end; yield an event when the line ends one."""
        line = line.rstrip("\r\n")
        if not line:
            if self._data:
                yield self._id, self._kind, "\n".join(self._data)
            self._clear()
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "id":
                self._id = value
            elif field == "event":
                self._kind = value
            elif field == "data":
                self._data.append(value)
