"""Which comms (widgets' connections) live in the process that answers now.

Exists because comms die with their process: after a switch the page must hear that its widgets
are disconnected, and what it still sends them must not reach a kernel that never knew them (it
would print an error under a cell that did nothing wrong).
"""

from __future__ import annotations

from gpusession.kernels.wire import Message

DEAD_KEPT = 10_000


class Comms:
    """The ids of open comms, and of those that died at a switch."""

    def __init__(self) -> None:
        self._open: dict[str, None] = {}
        self._dead: dict[str, None] = {}

    def note(self, message: Message) -> None:
        """See a comm message on its way, from either side."""
        if message.type not in ("comm_open", "comm_close"):
            return
        comm_id = str(message.content().get("comm_id", ""))
        if message.type == "comm_open":
            self._open[comm_id] = None
        else:
            self._open.pop(comm_id, None)

    def addressed_to_dead(self, message: Message) -> bool:
        """Whether a client speaks to a comm that went down with an earlier process."""
        if message.type not in ("comm_msg", "comm_close") or not self._dead:
            return False
        return str(message.content().get("comm_id", "")) in self._dead

    def die(self) -> list[str]:
        """The process is no more; return those that were open."""
        ended, self._open = list(self._open), {}
        self._dead.update(dict.fromkeys(ended))
        for old in list(self._dead)[:-DEAD_KEPT]:
            del self._dead[old]
        return ended
