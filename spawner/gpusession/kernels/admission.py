"""Which shell request goes to the kernel next: the queue that a kernel's own queue becomes.

Exists so that a move falls between two cells of a Run All: only one request at a time is with
the kernel, the others wait here, where a move can hold them. Promises: first come, first served,
and each once (a message that is delivered twice is forwarded once, as a kernel would); the
agent's own requests go before those that wait and pass a hold; messages that Jupyter lets past a
running cell (comms, subshells) pass here too, unless the queue is held; after a failed cell the
waiting cells are doomed exactly as in a kernel's own queue. Knows no sockets and no threads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from gpusession.kernels.wire import Message

SEEN_KEPT = 1 << 16
"""How many signatures are remembered against double delivery (a kernel's own number)."""

MOVE, START, DEAD, WORKER = "move", "start", "dead", "worker"
"""Why the queue is held: a move's last steps; a process that starts; one that has ended; a kernel
that runs its cells on a GPU only and waits for one (then only cells wait)."""

_COMMS = ("comm_open", "comm_msg", "comm_close")


@dataclass
class Request:
    """One shell request on its way."""

    message: Message
    frames: list[bytes]
    own: bool = False
    """The agent's, not a client's."""
    replied: bool = False
    idle: bool = False
    interrupted: bool = False
    half_since: float | None = None
    """When the first of reply and idle came."""
    content: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def header(self) -> bytes:
        """To answer under, as it came."""
        return self.message.parts[0]

    @property
    def executes(self) -> bool:
        return self.message.type == "execute_request"

    @property
    def beside(self) -> bool:
        """Goes past a running cell: comms and subshells do in Jupyter."""
        return self.message.type in _COMMS or bool(self.message.header.get("subshell_id"))

    @property
    def untracked(self) -> bool:
        """Comms have no reply, and none of their own idle while a cell runs: nothing to wait for."""
        return self.message.type in _COMMS

    @property
    def stops_on_error(self) -> bool:
        return bool(self.content.get("stop_on_error", True)) and not self.content.get("silent", False)


def request_from(message: Message, frames: list[bytes], *, own: bool = False) -> Request:
    content = message.content() if message.type == "execute_request" else {}
    return Request(message, frames, own=own, content=content)


class Admission:
    """The queue, what is with the kernel, and what holds the queue."""

    def __init__(self) -> None:
        self.waiting: deque[Request] = deque()
        self.urgent: deque[Request] = deque()
        self.doomed: list[Request] = []
        self.flying: dict[str, Request] = {}
        self.main: Request | None = None
        self.holds: set[str] = set()
        self.succeeded = 0
        self.finished = 0
        """Cells that have ended, in whatever way, in all processes of this kernel."""
        self._seen: dict[bytes, None] = {}

    # --- coming in

    def is_new(self, message: Message) -> bool:
        """Remember a message; False when it was delivered before."""
        mark = message.signature or message.id.encode()
        if mark in self._seen:
            return False
        self._seen[mark] = None
        if len(self._seen) > SEEN_KEPT:
            for old in list(self._seen)[: SEEN_KEPT // 10]:
                del self._seen[old]
        return True

    def add(self, request: Request) -> None:
        (self.urgent if request.own else self.waiting).append(request)

    def next(self) -> Request | None:
        """Return the next request for the kernel, now counted as with it; None: nothing may go."""
        if self.main is None and self.urgent:
            return self._fly(self.urgent.popleft())
        if self.holds - {WORKER}:
            return None
        for request in self.waiting:
            if request.executes and self.holds:
                continue
            if self.main is None or request.beside:
                self.waiting.remove(request)
                return self._fly(request)
        return None

    def _fly(self, request: Request) -> Request:
        if request.untracked:
            return request
        self.flying[request.id] = request
        if not request.beside:
            self.main = request
        return request

    # --- coming back

    def reply(self, parent_id: str, content: dict[str, Any], now: float) -> None:
        """Note a reply. A failed cell dooms the cells that wait."""
        request = self.flying.get(parent_id)
        if request is None or request.replied:
            return
        request.replied = True
        request.half_since = request.half_since or now
        if not request.executes or request.own:
            return
        self.finished += 1
        if content.get("status") == "ok":
            self.succeeded += 1
        elif content.get("status") == "error" and request.stops_on_error and not request.beside:
            self.doomed += [one for one in self.waiting if one.executes and not one.beside]
            self.waiting = deque(one for one in self.waiting if not (one.executes and not one.beside))

    def went_idle(self, parent_id: str, now: float) -> None:
        request = self.flying.get(parent_id)
        if request is not None:
            request.idle = True
            request.half_since = request.half_since or now

    def landed(self, request: Request) -> bool:
        """Take a request that has reply and idle out; False when it has not."""
        if not (request.idle and (request.replied or not request.message.type.endswith("_request"))):
            return False
        self.forget(request)
        return True

    def forget(self, request: Request) -> None:
        self.flying.pop(request.id, None)
        if self.main is request:
            self.main = None

    def take_doomed(self) -> list[Request]:
        """Return the cells to be answered ``aborted`` now that the failed one is through."""
        if self.main is not None:
            return []
        doomed, self.doomed = self.doomed, []
        return doomed

    def take_waiting(self, *, cells_only: bool = False) -> list[Request]:
        """Empty the queue (not what is with the kernel)."""
        taken = [*self.doomed, *(one for one in self.waiting if one.executes or not cells_only)]
        self.doomed = []
        self.waiting = deque(one for one in self.waiting if cells_only and not one.executes)
        return taken

    def forget_own(self) -> None:
        """The process that our own requests were meant for is gone."""
        self.urgent.clear()
        for request in list(self.flying.values()):
            if request.own:
                self.forget(request)

    @property
    def in_flight(self) -> str | None:
        """The code of the client's request that runs now ("" when it is no cell), or None."""
        for request in self.flying.values():
            if not request.own:
                return str(request.content.get("code", ""))
        return None
