"""Writes one snapshot: aside, digested while it is written, synced, renamed.

Promises: until the rename there is nothing under the snapshot's id; after a failure nothing is left;
an error of the disk comes out as StorageFull or Unavailable. Large pieces of memory are written from
where they are (`gpusession.state.pieces`), or not at all if an earlier snapshot holds them unchanged.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpulease import errors
from gpusession.state.crew import Crew
from gpusession.state.disk import Disk
from gpusession.state.known import Known
from gpusession.state.manifest import ALIGN, NAME, SMALL, BufferPart, ComponentPart, Manifest, dump
from gpusession.state.memory import Memory
from gpusession.state.pickling import Stream
from gpusession.state.pieces import PieceWriter

PIECE_BYTES = 1 << 20
"""From here on a body or a buffer is a piece, with a file of its own."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(error: OSError) -> errors.GpuhubError:
    if error.errno in FULL:
        return errors.StorageFull("There is no room left to save the variables.")
    return errors.Unavailable(f"The variables could not be written: {error.strerror or error}.")


class SnapshotWriter:
    """Use as a context: leaving it without `finish` removes everything.

    Raises errors.StorageFull, Unavailable.
    """

    def __init__(
        self, base: Path, snapshot_id: str, disk: Disk, known: Known, progress: Callable[[int], None]
    ) -> None:
        self.id = snapshot_id
        self._base, self._disk, self._progress = base, disk, progress
        self._folder = base / f".{snapshot_id}.new"
        self._crew = Crew()
        self._pieces = PieceWriter(self._folder, disk, self._crew, known)
        self._small: int | None = None
        self._waiting = bytearray()
        self._small_bytes = 0
        self.components: list[ComponentPart] = []
        self.total = 0
        """Bytes of all files but the list of contents, so far."""
        self._finished = False

    @property
    def written(self) -> int:
        """Bytes that no earlier snapshot held."""
        return self._pieces.written + self._small_bytes

    def __enter__(self) -> Self:
        try:
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._disk.make_folder(self._folder)
        except OSError as error:
            raise disk_error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crew.__exit__(kind, error, trace)
        self._pieces.close()
        if self._small is not None:
            try:
                self._disk.close(self._small)
            except OSError:
                pass
            finally:
                self._small = None
        if not self._finished:
            self._disk.remove(self._folder)

    def add(self, keys: list[str], stream: Stream, rank: int, chunks: Iterator[Any]) -> int:
        """Write a component; return its bytes."""
        try:
            part = self._add(keys, stream, rank, [*chunks])
        except OSError as error:
            raise disk_error(error) from error
        self.components.append(part)
        return part.nbytes

    def _add(self, keys: list[str], stream: Stream, rank: int, body: list[Any]) -> ComponentPart:
        length = pickled = sum(len(one) for one in body)
        buffers = []
        for one in stream.buffers:
            if one.nbytes >= PIECE_BYTES:
                piece = self._piece([one.view])
                buffers.append(BufferPart(0, one.nbytes, one.writable, one.array, piece))
                continue
            if length % ALIGN:
                body.append(bytes(ALIGN - length % ALIGN))
                length += len(body[-1])
            buffers.append(BufferPart(length, one.nbytes, one.writable, one.array))
            body.append(one.view)
            length += one.nbytes
        if length >= PIECE_BYTES:
            return ComponentPart(keys, self._piece(body), 0, length, pickled, buffers, "", rank)
        start = self._small_bytes
        sha256 = self._add_small(b"".join(body))
        return ComponentPart(keys, SMALL, start, length, pickled, buffers, sha256, rank)

    def _piece(self, parts: list[Any]) -> str:
        before = self.total
        memory = Memory(parts)

        def done(nbytes: int) -> None:
            self.total = before + nbytes
            self._progress(self.total)

        return self._pieces.add(memory, done)

    def _add_small(self, body: bytes) -> str:
        """Return its digest."""
        self._waiting += body
        self._small_bytes += len(body)
        if len(self._waiting) >= PIECE_BYTES:
            self._write_small()
        self.total += len(body)
        self._progress(self.total)
        return hashlib.sha256(body).hexdigest()

    def _write_small(self) -> None:
        if self._small is None:
            self._small = self._disk.create(self._folder / SMALL)
        self._disk.write(self._small, self._waiting)
        self._waiting = bytearray()

    def finish(self, manifest: Manifest) -> None:
        """Sync all and let the snapshot appear under its id."""
        try:
            manifest.components = self.components
            manifest.files, manifest.pieces = self._pieces.finish()
            if self._small_bytes:
                manifest.files[SMALL] = self._small_bytes
                self._write_small()
                self._sync_small()
            file = self._disk.create(self._folder / NAME)
            try:
                self._disk.write(file, dump(manifest))
                self._disk.sync(file)
            finally:
                self._disk.close(file)
            self._disk.sync_folder(self._folder)
            self._disk.rename(self._folder, self._base / self.id)
            self._finished = True
            self._disk.sync_folder(self._base)
        except OSError as error:
            if self._finished:
                self._disk.remove(self._base / self.id)
            raise disk_error(error) from error
        self._pieces.remember(self._base / self.id)

    def _sync_small(self) -> None:
        file, self._small = self._small, None
        if file is not None:
            try:
                self._disk.sync(file)
            finally:
                self._disk.close(file)
