"""Requests that the session itself makes of a kernel, and that nobody else sees.

Exists to tie replies and progress to who waits for them. Promises: everybody who waits hears an
end, also when the process, or the relay, goes away.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from gpusession.kernels.ports import AgentError, Progress
from gpusession.kernels.wire import Message

OWN = b"gpuhub"
"""Stands where a client's identity stands in requests of our own."""


@dataclass
class _Waiting:
    progress: Progress | None
    where: object
    """The process it was sent to, as the caller calls it."""
    result: Future[dict[str, Any]] = field(default_factory=Future)


class OwnRequests:
    """Used in the relay's thread only."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def add(self, msg_id: str, progress: Progress | None, where: object = None) -> Future[dict[str, Any]]:
        waiting = self._waiting[msg_id] = _Waiting(progress, where)
        return waiting.result

    @staticmethod
    def gone(why: str) -> Future[dict[str, Any]]:
        """Return a future that has failed already."""
        future: Future[dict[str, Any]] = Future()
        future.set_exception(AgentError("unavailable", why))
        return future

    def published(self, message: Message) -> None:
        waiting = self._waiting.get(message.parent_id)
        if waiting is not None and waiting.progress is not None and message.type == "gpuhub_progress":
            content = message.content()
            waiting.progress(int(content.get("done", 0)), content.get("total"))

    def replied(self, message: Message) -> None:
        waiting = self._waiting.pop(message.parent_id, None)
        if waiting is None or not waiting.result.set_running_or_notify_cancel():
            return
        content = message.content()
        if content.get("status") == "ok":
            waiting.result.set_result(content)
            return
        text = str(content.get("message") or content.get("evalue") or "The kernel refused.")
        details, hint = content.get("details"), content.get("hint")
        error = AgentError(
            str(content.get("code", "internal")),
            text,
            details if isinstance(details, dict) else None,
            hint if isinstance(hint, str) else None,
        )
        waiting.result.set_exception(error)

    def drop(self, msg_id: str) -> bool:
        """Nobody waits any more; False: it was not waited for."""
        return self._waiting.pop(msg_id, None) is not None

    def fail(self, msg_id: str, why: str) -> None:
        waiting = self._waiting.pop(msg_id, None)
        if waiting is not None and waiting.result.set_running_or_notify_cancel():
            waiting.result.set_exception(AgentError("unavailable", why))

    def fail_all(self, why: str, *, but: object = None) -> None:
        """End all, or all that were not sent to one process."""
        for msg_id, waiting in list(self._waiting.items()):
            if but is None or waiting.where is not but:
                self.fail(msg_id, why)
