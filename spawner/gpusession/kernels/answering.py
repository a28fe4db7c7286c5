"""Who gets an answer that no kernel gives: cells of a lost kernel, cells that wait behind a failed one.

Runs in the relay's thread. Promises: each request is answered once, and taken out of the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from gpusession.kernels.admission import Admission
from gpusession.kernels.answers import ABORTED, Voice, failed


class Answering:
    """Answers from a queue through a voice."""

    def __init__(self, queue: Admission, voice: Voice) -> None:
        self._queue, self._voice = queue, voice
        self._said: deque[tuple[str, str]] = deque()

    def flying(self, content: Mapping[str, Any]) -> list[str]:
        """Answer what is with the kernel; return the ids that the kernel may no longer answer."""
        answered = []
        for request in list(self._queue.flying.values()):
            self._queue.forget(request)
            if request.own:
                continue
            answered.append(request.id)
            if request.replied:
                self._voice.state("idle", request.header)
            else:
                self._voice.answer(request, content, running=True)
        return answered

    def abort_waiting(self, *, cells_only: bool = False) -> int:
        """Answer what waits ``aborted``; return how many."""
        taken = self._queue.take_waiting(cells_only=cells_only)
        for request in taken:
            self._voice.answer(request, ABORTED)
        return len(taken)

    def fail_waiting(self, ename: str, evalue: str) -> None:
        """The first waiting cell fails, the others are aborted."""
        content: Mapping[str, Any] = failed(ename, evalue)
        for request in self._queue.take_waiting(cells_only=True):
            self._voice.answer(request, content)
            content = ABORTED

    def say(self, text: str, name: str) -> None:
        """A line under the cell that runs or waits first; kept until there is one."""
        self._said.append((text, name))
        self.say_waiting()

    def say_waiting(self) -> None:
        requests = [*self._queue.flying.values(), *self._queue.waiting]
        cells = [one for one in requests if one.executes and not one.own]
        while cells and self._said:
            text, name = self._said.popleft()
            self._voice.say(text, cells[0].header, name)

    def forget_said(self) -> None:
        self._said.clear()
