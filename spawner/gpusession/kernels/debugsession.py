"""Whether somebody debugs a kernel, as its messages show, and whether he may.

Exists because a debug session ends with its process: after a move the page must hear so, or it goes
on showing a cell as stopped that runs no more. Used in the relay's thread only. Promises: where the
kernel's own debugger would answer every account of the machine, it is not started, with a sentence
that says so.
"""

from __future__ import annotations

from typing import Any

from gpusession.kernels.wire import Message

OFF = (
    "Debugging is off for this kernel: its debugger would answer every account of this machine. "
    "Use the server's own Python 3, or install the same gpuhub into this kernel's environment."
)
ENDED = "Debugging ended, because the notebook has moved. Start the debugger again to go on.\n"


class DebugSession:
    """``allowed``: the kernel is ours (it listens nowhere), or nobody else is on this network."""

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self.on = False

    def refusal(self, message: Message) -> dict[str, Any] | None:
        """Return the answer to a client's request that must not reach the kernel, None: it may."""
        if self._allowed or message.type != "debug_request":
            return None
        request = message.content()
        if request.get("command") == "debugInfo":
            return None  # asked of every kernel; starts nothing
        return refused(request, OFF)

    def replied(self, message: Message) -> None:
        if message.type != "debug_reply":
            return
        content = message.content()
        if content.get("command") == "disconnect":
            self.on = False
        elif content.get("command") == "attach" and content.get("success"):
            self.on = True

    def published(self, message: Message) -> None:
        if message.type == "debug_event" and message.content().get("event") == "terminated":
            self.on = False

    def die(self) -> bool:
        """The process is no more; return whether it was being debugged."""
        was, self.on = self.on, False
        return was


def refused(request: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the response to a request that failed."""
    return {
        "type": "response",
        "seq": 0,
        "request_seq": request.get("seq", 0),
        "command": request.get("command", ""),
        "success": False,
        "message": why,
        "body": {},
    }
