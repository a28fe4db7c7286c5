"""What a variable reaches, asked in the cheapest way.

The memo of a pickler knows every object that it met. Copying it out costs more than pickling, so for
the largest variable it is not copied: the pickler is asked about one object after another instead.
"""

from __future__ import annotations

import pickle
from typing import Any

from gpusession.state.pickling import StatePickler

HEAD_BYTES = 16
FRAME, GETS = b"\x95", (b"h", b"j")
"""The first opcode after the protocol (and a frame) tells: a reference into the memo, or something new."""


class _Descends(BaseException):
    """The object is not in the memo: its contents are about to be pickled."""


class _Sink:
    def __init__(self) -> None:
        self.head = b""

    def write(self, data: Any) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(memoryview(data)[:HEAD_BYTES])


class _Asking(pickle.Pickler):
    """Shares a copy of a memo; stops at whatever is not in it."""

    def __init__(self, sink: _Sink, memo: Any) -> None:
        super().__init__(sink, 5, buffer_callback=_no_buffer)
        self.memo = memo
        self.first = True

    def persistent_id(self, _obj: Any) -> Any:
        if self.first:
            self.first = False
            return None
        raise _Descends

    def reducer_override(self, _obj: Any) -> Any:
        raise _Descends


def _no_buffer(_buffer: Any) -> bool:
    return False


class LargeReach:
    """Answers for one pickler that is still alive."""

    def __init__(self, pickler: StatePickler) -> None:
        self._pickler = pickler
        self._sink = _Sink()
        self._asking = _Asking(self._sink, pickler.memo)
        self._known: dict[int, bool] = {}

    def holds(self, thing: Any) -> bool:
        known = self._known.get(id(thing))
        if known is None:
            known = self._known[id(thing)] = self._ask(thing)
        return known

    def _ask(self, thing: Any) -> bool:
        self._sink.head, self._asking.first = b"", True
        try:
            self._asking.dump(thing)
        except (_Descends, Exception):  # noqa: BLE001 — any failure means that it was not in the memo
            return False
        body = self._sink.head[2:]
        return body[9 if body[:1] == FRAME else 0 :][:1] in GETS
