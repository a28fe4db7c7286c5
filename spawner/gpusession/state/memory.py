"""Several pieces of memory, seen as one without joining them: what is to be written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any


class Memory:
    """Read it from any thread. It is as it is at that moment: another thread may be changing it."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._views = [view for one in parts if (view := memoryview(one).cast("B")).nbytes]
        self._starts: list[int] = []
        self.nbytes = 0
        for view in self._views:
            self._starts.append(self.nbytes)
            self.nbytes += view.nbytes

    def look(self, start: int, nbytes: int, room: memoryview) -> memoryview:
        """Return this part: where it is if it lies in one, else copied into ``room``."""
        number = bisect_right(self._starts, start) - 1
        offset = start - self._starts[number]
        if offset + nbytes <= self._views[number].nbytes:
            return self._views[number][offset : offset + nbytes]
        return self.copy(start, nbytes, room)

    def copy(self, start: int, nbytes: int, room: memoryview) -> memoryview:
        """Copy this part into ``room``; return what was copied."""
        number = bisect_right(self._starts, start) - 1
        done, offset = 0, start - self._starts[number]
        while done < nbytes:
            piece = self._views[number][offset : offset + nbytes - done]
            room[done : done + piece.nbytes] = piece
            done, offset, number = done + piece.nbytes, 0, number + 1
        return room[:nbytes]
