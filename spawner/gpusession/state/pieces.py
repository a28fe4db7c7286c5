"""Writes the pieces of one snapshot: those that are known get a second name, the others a file.

Promises: digest and file agree even if another thread writes to the memory meanwhile, since each leaf is
copied once, and digested and written from that copy; the memory that this takes is one leaf for each
thread. What was written is on its way to the disk at once, and there after `finish`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpusession.state.crew import Crew
from gpusession.state.digests import Digesting
from gpusession.state.disk import Disk
from gpusession.state.known import Identity, Known, Piece
from gpusession.state.manifest import PieceDigest
from gpusession.state.memory import Memory

OPEN_FILES = 64
"""So many wait for their sync at most."""
BEGIN_SYNC_BYTES = 32 << 20


@dataclass
class _Made:
    nbytes: int
    leaves: tuple[bytes, ...]


class PieceWriter:
    """Writes into one folder. Raises OSError."""

    def __init__(self, folder: Path, disk: Disk, crew: Crew, known: Known) -> None:
        self._folder, self._disk, self._crew, self._known = folder, disk, crew, known
        self._made: dict[str, _Made] = {}
        self._open: dict[str, int] = {}
        self._leaf = known.digesting.of_leaf()
        self.written = 0
        """Bytes that were not known."""

    @property
    def digesting(self) -> Digesting:
        return self._known.digesting

    def add(self, memory: Memory, done: Callable[[int], None]) -> str:
        """Return the name of the piece's file. ``done``: told how many bytes are through."""
        name = f"p{len(self._made)}.bin"
        leaves = self._linked(name, memory)
        if leaves is None:
            leaves = self._written(name, memory, done)
            self.written += memory.nbytes
        done(memory.nbytes)
        self._made[name] = _Made(memory.nbytes, leaves)
        return name

    def _linked(self, name: str, memory: Memory) -> tuple[bytes, ...] | None:
        size = self.digesting.leaf

        def digest(number: int) -> bytes:
            nbytes = min(size, memory.nbytes - number * size)
            return self._leaf(memory.look(number * size, nbytes, self._crew.room(size)))

        for piece in self._known.find(memory.nbytes, digest, self._crew):
            try:
                status = self._disk.link(piece.path, self._folder / name)
            except OSError:
                continue  # deleted, or no links here, or no room: writing it tells
            if Identity.of(status) == piece.identity:
                return piece.leaves
            self._disk.unlink(self._folder / name)
        return None

    def _written(self, name: str, memory: Memory, done: Callable[[int], None]) -> tuple[bytes, ...]:
        while len(self._open) >= OPEN_FILES:
            self._sync(next(iter(self._open)))
        file = self._open[name] = self._disk.create(self._folder / name)
        size = self.digesting.leaf
        leaves = [b""] * self.digesting.count(memory.nbytes)
        per_sync = max(1, BEGIN_SYNC_BYTES // size)

        def write(number: int) -> None:
            start = number * size
            whole = memory.copy(start, min(size, memory.nbytes - start), self._crew.room(size))
            leaves[number] = self._leaf(whole)
            self._disk.write_at(file, whole, start)
            if number % per_sync == per_sync - 1:
                first = (number + 1 - per_sync) * size
                self._disk.begin_sync(file, first, start + whole.nbytes - first)

        self._crew.share(len(leaves), write, lambda count: done(min(count * size, memory.nbytes)))
        self._disk.begin_sync(file, 0, memory.nbytes)
        return tuple(leaves)

    def finish(self) -> tuple[dict[str, int], dict[str, PieceDigest]]:
        """Have everything on the disk; return the files' sizes and digests by name."""
        names = list(self._open)
        self._crew.share(len(names), lambda number: self._sync(names[number]))
        way = self.digesting
        return {name: one.nbytes for name, one in self._made.items()}, {
            name: PieceDigest(way.algorithm, f"{way.seed:x}", way.leaf, way.whole(one.nbytes, one.leaves))
            for name, one in self._made.items()
        }

    def _sync(self, name: str) -> None:
        file = self._open.pop(name)
        try:
            self._disk.sync(file)
        finally:
            self._disk.close(file)

    def remember(self, folder: Path) -> None:
        """The snapshot lies in ``folder`` now: know its pieces from here on."""
        found = []
        for name, one in self._made.items():
            with contextlib.suppress(OSError):
                path = folder / name
                found.append(Piece(path, Identity.of(path.lstat()), one.nbytes, one.leaves))
        self._known.replace(found)

    def close(self) -> None:
        while self._open:
            _, file = self._open.popitem()
            with contextlib.suppress(OSError):
                self._disk.close(file)
