"""What this kernel knows of the pieces in snapshots that it has saved or loaded.

A piece of memory that did not change since then is not written again: the file gets a second name in
the new snapshot. Promises: a piece counts as unchanged only if the digest of every leaf is what it was
(`gpusession.state.digests`), read from the memory now; and a file counts as still that piece only if it
is the same file (device, number, length, time of its last change). Addresses, names and times of objects
are never trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpusession.state.crew import Crew
from gpusession.state.digests import Digesting

FIRST_LOOK = 8
"""Leaves that are digested before the first look at what is still possible; then twice as many each time."""


@dataclass(frozen=True)
class Identity:
    """What tells that a file is still the same file."""

    device: int
    number: int
    nbytes: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Piece:
    """A piece in a whole snapshot."""

    path: Path
    identity: Identity
    nbytes: int
    leaves: tuple[bytes, ...]


class Known:
    """All pieces that are digested in one way."""

    def __init__(self, digesting: Digesting) -> None:
        self.digesting = digesting
        self._pieces: dict[tuple[int, bytes], list[Piece]] = {}

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __iter__(self) -> Iterator[Piece]:
        return (piece for pieces in self._pieces.values() for piece in pieces)

    def replace(self, pieces: Iterable[Piece]) -> None:
        """Forget all others: older snapshots may be deleted at any time, the newest stays."""
        self._pieces = {}
        self.add(pieces)

    def add(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if piece.leaves:
                self._pieces.setdefault((piece.nbytes, piece.leaves[0]), []).append(piece)

    def find(self, nbytes: int, leaf: Callable[[int], bytes], crew: Crew) -> list[Piece]:
        """Return the pieces with these bytes. ``leaf``: returns the digest of one leaf, from any thread."""
        if not any(size == nbytes for size, _ in self._pieces):
            return []
        left = self._pieces.get((nbytes, leaf(0)), [])
        count, start, look = self.digesting.count(nbytes), 1, FIRST_LOOK
        while left and start < count:
            found = [b""] * min(look, count - start)

            def digest(number: int, start: int = start, found: list[bytes] = found) -> None:
                found[number] = leaf(start + number)

            crew.share(len(found), digest)
            left = [one for one in left if list(one.leaves[start : start + len(found)]) == found]
            start, look = start + len(found), 2 * look
        return left
