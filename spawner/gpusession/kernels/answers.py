"""What the relay says in a kernel's name: states, replies, errors, lines of output.

Exists so that a client never waits for a word that no kernel will say any more. Promises: an
answered request looks as if a kernel had answered it: busy, its output, a reply, idle; each signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpusession.kernels.admission import Request
from gpusession.kernels.wire import EMPTY, Message, Wire

ABORTED = {"status": "aborted"}


def failed(ename: str, evalue: str) -> dict[str, Any]:
    """Return the content of an error reply."""
    return {
        "status": "error",
        "ename": ename,
        "evalue": evalue,
        "traceback": [f"\x1b[0;31m{ename}\x1b[0m: {evalue}"],
        "execution_count": None,
        "user_expressions": {},
        "payload": [],
    }


class Voice:
    """Speaks on iopub through ``publish`` and on a request's channel through ``reply``."""

    def __init__(
        self,
        wire: Wire,
        publish: Callable[[list[bytes], str, bytes], None],
        reply: Callable[[str, list[bytes]], None],
    ) -> None:
        self._wire, self._publish, self._reply = wire, publish, reply

    def state(self, state: str, parent: bytes = EMPTY) -> None:
        frames = self._wire.make("status", {"execution_state": state}, parent=parent, idents=[b"status"])
        self._publish(frames, "status", parent)

    def say(self, text: str, parent: bytes, name: str) -> None:
        self._publish(self.line(text, parent, name), "stream", parent)

    def line(self, text: str, parent: bytes, name: str = "stderr") -> list[bytes]:
        return self._wire.make("stream", {"name": name, "text": text}, parent=parent, idents=[b"stream"])

    def welcome(self, topic: bytes) -> None:
        content = {"subscription": topic.decode("utf-8", "replace")}
        frames = self._wire.make("iopub_welcome", content, idents=[topic] if topic else [])
        self._publish(frames, "iopub_welcome", EMPTY)

    def close_comm(self, comm_id: str) -> None:
        content = {"comm_id": comm_id, "data": {}}
        self._publish(self._wire.make("comm_close", content, idents=[b"comm"]), "comm_close", EMPTY)

    def end_debugging(self) -> None:
        content = {"type": "event", "event": "terminated", "seq": 0, "body": {}}
        self._publish(self._wire.make("debug_event", content, idents=[b"debug_event"]), "debug_event", EMPTY)

    def answer(self, request: Request, content: Mapping[str, Any], *, running: bool = False) -> None:
        """``running``: the kernel has said busy already."""
        message, parent = request.message, request.header
        if not running:
            self.state("busy", parent)
        if content.get("status") == "error" and request.executes:
            error = {name: content[name] for name in ("ename", "evalue", "traceback")}
            frames = self._wire.make("error", error, parent=parent, idents=[b"error"])
            self._publish(frames, "error", parent)
        self.reply(message, content, "shell")
        self.state("idle", parent)

    def answer_control(self, message: Message, content: Mapping[str, Any]) -> None:
        """As `answer`, for a request on control that no kernel has heard of."""
        self.state("busy", message.parts[0])
        self.reply(message, content, "control")
        self.state("idle", message.parts[0])

    def reply(self, message: Message, content: Mapping[str, Any], channel: str) -> None:
        """A reply alone; messages that want none (comms) get none."""
        if not message.type.endswith("_request"):
            return
        frames = self._wire.make(
            message.type.removesuffix("_request") + "_reply",
            content,
            idents=message.idents,
            parent=message.parts[0],
            metadata={**self._wire.started(), "status": content.get("status", "ok")},
        )
        self._reply(channel, frames)
