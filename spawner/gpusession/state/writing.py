"""Writes one snapshot: aside, digests beside the write, synced, renamed.

Promises: until the rename there is nothing under the snapshot's id; after a failure nothing is left;
an error of the disk comes out as StorageFull or Unavailable. Memory is written from where it is,
in pieces that are copied once, so that digest and file agree even if another thread writes to it.
"""

from __future__ import annotations

import errno
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpulease import errors
from gpusession.state.disk import Disk
from gpusession.state.manifest import ALIGN, NAME, BufferPart, ComponentPart, Manifest, dump
from gpusession.state.pickling import Stream

PIECE = 4 << 20
OWN_FILE_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(error: OSError) -> errors.GpuhubError:
    if error.errno in FULL:
        return errors.StorageFull("There is no room left to save the variables.")
    return errors.Unavailable(f"The variables could not be written: {error.strerror or error}.")


class Digest:
    """SHA-256 in a thread of its own, beside reading or writing."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[Any] = queue.Queue(4)
        self._hash = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="gpuhub-digest", daemon=True)
        self._started = False

    def add(self, piece: bytes | memoryview) -> None:
        if not self._started and len(piece) < PIECE // 4:
            self._hash.update(piece)
            return
        if not self._started:
            self._started = True
            self._thread.start()
        self._pieces.put(piece)

    def done(self) -> str:
        if self._started:
            self._pieces.put(None)
            self._thread.join()
        return self._hash.hexdigest()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)


class SnapshotWriter:
    """Use as a context: leaving it without `finish` removes everything.

    Raises errors.StorageFull, Unavailable.
    """

    def __init__(self, base: Path, snapshot_id: str, disk: Disk, progress: Callable[[int], None]) -> None:
        self.id = snapshot_id
        self._base, self._disk, self._progress = base, disk, progress
        self._folder = base / f".{snapshot_id}.new"
        self._files: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self.components: list[ComponentPart] = []
        self.written = 0
        self._finished = False

    def __enter__(self) -> SnapshotWriter:
        try:
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._disk.make_folder(self._folder)
        except OSError as error:
            raise disk_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            try:
                self._disk.close(file)
            except OSError:
                continue
        self._open.clear()
        if not self._finished:
            self._disk.remove(self._folder)

    def add(self, keys: list[str], stream: Stream, rank: int, chunks: Iterator[Any]) -> int:
        """Write a component; return its bytes."""
        large = stream.total_bytes >= OWN_FILE_BYTES
        name = f"c{len(self.components)}.bin" if large else "small.bin"
        try:
            part = self._write(keys, name, stream, rank, chunks)
        except OSError as error:
            raise disk_error(error) from error
        self.components.append(part)
        return part.length

    def _write(
        self, keys: list[str], name: str, stream: Stream, rank: int, chunks: Iterator[Any]
    ) -> ComponentPart:
        if name not in self._open:
            self._open[name] = self._disk.create(self._folder / name)
            self._files[name] = 0
        file, start = self._open[name], self._files[name]
        digest = Digest()
        position = 0

        def put(data: Any) -> None:
            nonlocal position
            view = memoryview(data).cast("B")
            for begin in range(0, len(view), PIECE):
                piece = view[begin : begin + PIECE]
                whole = data if len(piece) == len(view) and isinstance(data, bytes) else bytes(piece)
                digest.add(whole)
                self._disk.write(file, whole)
                position += len(piece)
                self._files[name] = start + position
                self.written += len(piece)
                self._progress(self.written)

        try:
            for chunk in chunks:
                put(chunk)
            size, buffers = position, []
            for buffer in stream.buffers:
                if position % ALIGN:
                    put(bytes(ALIGN - position % ALIGN))
                buffers.append(BufferPart(position, buffer.nbytes, buffer.writable, buffer.array))
                put(buffer.view)
        finally:
            sha256 = digest.done()
        if name != "small.bin":
            self._finish_file(name)
        return ComponentPart(keys, name, start, position, size, buffers, sha256, rank)

    def _finish_file(self, name: str) -> None:
        file = self._open.pop(name)
        try:
            self._disk.sync(file)
        finally:
            self._disk.close(file)

    def finish(self, manifest: Manifest) -> None:
        """Sync all and let the snapshot appear under its id."""
        manifest.components, manifest.files = self.components, self._files
        try:
            for name in list(self._open):
                self._finish_file(name)
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
