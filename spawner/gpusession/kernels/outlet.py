"""The way out for what a kernel publishes: nothing lost silently, memory bounded.

Exists because ZeroMQ's publish sockets drop silently when a reader is slow. Promises: a reader
that is merely slow gets everything, in order; what waits for readers is bounded in bytes; where
output had to be cut, a visible line says so, and how much; states (busy, idle, errors) are never
cut. A reader that takes nothing at all for `STUCK_SECONDS` no longer delays the others (from
then on ZeroMQ drops for it, and a line says that output may be missing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import zmq

PIPE_MESSAGES = 1000
"""Messages that ZeroMQ may hold per reader; beyond that they wait here, where bytes are counted."""

STUCK_SECONDS = 20.0
"""How long a reader that takes nothing may hold up the others."""

PACE = 200
"""How many waiting messages are sent at a time past a stuck reader: the others keep up with that."""

STUCK_HERE = "A client of this notebook takes no output any more; in other clients some may be missing.\n"

CUTTABLE = frozenset({"stream", "display_data", "execute_result", "update_display_data"})
"""What may be cut: output. Never states, inputs, errors, or the widgets' messages."""

CUT_HERE = "Output was cut here: more came than could be shown. The cell itself goes on.\n"


class Outlet:
    """Publishes on one XPUB socket, of which this is the only user."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        budget_bytes: int,
        say: Callable[[str, bytes], list[bytes]],
        clock: Callable[[], float],
    ) -> None:
        self._socket, self._budget, self._say, self._clock = socket, budget_bytes, say, clock
        self._backlog: deque[tuple[list[bytes], int]] = deque()
        self._bytes = 0
        self._stuck_since: float | None = None
        self._passing = False
        self._parent = b"{}"
        self._cut: tuple[int, int, bytes] | None = None

    @property
    def waiting(self) -> bool:
        return bool(self._backlog)

    def publish(self, frames: list[bytes], msg_type: str, parent: bytes) -> None:
        """Send now or as soon as readers keep up; cut output that would exceed the budget."""
        self._parent = parent
        if not self._backlog and self._try(frames):
            return
        size = sum(map(len, frames))
        if msg_type in CUTTABLE and (self._cut is not None or self._bytes + size > self._budget):
            if self._cut is None:
                self._push(self._say(CUT_HERE, parent))
                self._cut = (0, 0, parent)
            count, total, first = self._cut
            self._cut = (count + 1, total + size, first)
            return
        self._push(frames)

    def flush(self) -> None:
        """Send what waits, as far as readers take it."""
        stuck = self._stuck_since is not None and self._clock() - self._stuck_since > STUCK_SECONDS
        if stuck and self._backlog:
            self._pass_by()
        while self._backlog and not stuck:
            frames, _ = self._backlog[0]
            if not self._try(frames):
                return
            self._popped()

    def _pass_by(self) -> None:
        """Send without regard for the one who does not read."""
        if not self._passing:
            self._passing = True
            self._send_dropping(self._say(STUCK_HERE, self._parent))
        for _ in range(min(PACE, len(self._backlog))):
            self._send_dropping(self._backlog[0][0])
            self._popped()

    def _send_dropping(self, frames: list[bytes]) -> None:
        self._socket.setsockopt(zmq.XPUB_NODROP, 0)
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)

    def _popped(self) -> None:
        _, size = self._backlog.popleft()
        self._bytes -= size
        if self._cut is not None and self._bytes <= self._budget // 2:
            count, total, parent = self._cut
            self._cut = None
            self._push(self._say(f"{count} outputs ({total / 1e6:.1f} MB) were left out.\n", parent))

    def _push(self, frames: list[bytes]) -> None:
        size = sum(map(len, frames))
        self._backlog.append((frames, size))
        self._bytes += size

    def _try(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            if self._stuck_since is None:
                self._stuck_since = self._clock()
            return False
        self._stuck_since, self._passing = None, False
        return True
