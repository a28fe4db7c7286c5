"""Reads a snapshot's bytes and believes none of them before its digest fits.

Promises: what `Reading.components` returns was verified whole, in the memory where it stays, and nothing
was unpickled for it; several threads read and verify, so that it takes little longer than reading.
Raises SnapshotUnusable with the reason, or NotFound.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpulease import errors
from gpusession.state.crew import Crew
from gpusession.state.digests import NotHere
from gpusession.state.disk import open_regular, read_small
from gpusession.state.known import Identity, Piece
from gpusession.state.manifest import (
    MAX_BYTES,
    NAME,
    SMALL,
    BufferPart,
    ComponentPart,
    Damaged,
    Manifest,
    OtherPython,
    parse,
)

STEP_BYTES = 4 << 20
SMALL_AT_ONCE_BYTES = 64 << 20
"""Up to this size, the file of small components is read in one go."""
CHANGED = "Its contents were changed or damaged after they were saved."
CUT_OFF = "One of its files is cut off."


@dataclass
class Read:
    """One component in memory."""

    part: ComponentPart
    stream: memoryview
    buffers: list[Any]


def unusable(problem: str, hint: str | None = None) -> errors.SnapshotUnusable:
    return errors.SnapshotUnusable(f"This saved state cannot be used. {problem}", hint=hint)


def read_manifest(folder: Path) -> Manifest:
    """Raises NotFound, SnapshotUnusable."""
    running = platform.python_version()
    try:
        return parse(read_small(folder / NAME, MAX_BYTES), running)
    except FileNotFoundError as error:
        if folder.is_dir():
            raise unusable("It was never finished.") from error
        raise errors.NotFound("This saved state is not there any more.") from error
    except OtherPython as error:
        raise unusable(
            f"It was saved by Python {error.python}; this notebook runs Python {running}.",
            "Start the notebook in the environment that saved it, or re-run its cells.",
        ) from error
    except (Damaged, OSError) as error:
        text = str(error) if isinstance(error, Damaged) else f"It cannot be read ({error.strerror})."
        raise unusable(text) from error


class Reading:
    """The files of one snapshot, while they are read."""

    def __init__(self, folder: Path, manifest: Manifest, crew: Crew, progress: Callable[[int], None]) -> None:
        self._folder, self._manifest, self._crew, self._progress = folder, manifest, crew, progress
        self._open: dict[str, int] = {}
        self._small: bytes | None = None
        self._done = 0
        self.pieces: list[Piece] = []
        """The pieces that were read, all of them as they were saved."""

    def components(self, parts: list[ComponentPart]) -> list[Read]:
        """Read and verify all parts. Raises SnapshotUnusable; nothing is returned unless all fit."""
        try:
            return [self._component(part) for part in parts]
        except NotHere as error:
            raise unusable(
                f"It was saved where the library {error} is, and this notebook's environment lacks it.",
                f"Install {error} in this environment, or start the notebook in the one that saved it.",
            ) from error
        except (Damaged, OSError, MemoryError, EOFError) as error:
            if isinstance(error, MemoryError):
                raise errors.Unavailable(
                    "There is not enough memory to load this saved state.",
                    hint="Load some of its variables.",
                ) from error
            text = str(error) if isinstance(error, Damaged) else "One of its files cannot be read."
            raise unusable(text) from error
        finally:
            for file in self._open.values():
                os.close(file)
            self._open.clear()
            self._small = None

    def _component(self, part: ComponentPart) -> Read:
        if part.file in self._manifest.pieces or part.file == SMALL:
            whole = self._body(part)
            if len(whole) != part.length:
                raise Damaged(CUT_OFF)
            return Read(part, whole[: part.stream], [self._buffer(one, whole) for one in part.buffers])
        return self._first_format(part)

    def _body(self, part: ComponentPart) -> memoryview:
        file = self._file(part.file)
        if part.file in self._manifest.pieces:
            memory = memoryview(bytearray(part.length))
            self._piece(part.file, memory)
            return memory
        if self._small is None and self._manifest.files[SMALL] <= SMALL_AT_ONCE_BYTES:
            self._small = _exactly(file, self._manifest.files[SMALL], 0)
        if self._small is None:
            whole = memoryview(_exactly(file, part.length, part.offset))
        else:
            whole = memoryview(self._small)[part.offset : part.offset + part.length]
        if hashlib.sha256(whole).hexdigest() != part.sha256:
            raise Damaged(CHANGED)
        self._note(part.length)
        return whole

    def _buffer(self, buffer: BufferPart, body: memoryview) -> Any:
        held, memory = _allocate(buffer)
        if buffer.piece is None:
            memory[:] = body[buffer.offset : buffer.offset + buffer.nbytes]
        else:
            self._piece(buffer.piece, memory)
        return held

    def _piece(self, name: str, memory: memoryview) -> None:
        saved = self._manifest.pieces[name]
        way, before = saved.digesting, self._done
        file, leaf = self._file(name), way.of_leaf()
        leaves = [b""] * way.count(len(memory))

        def read(number: int) -> None:
            start = number * way.leaf
            part = memory[start : start + way.leaf]
            _into(file, part, start)
            leaves[number] = leaf(part)

        self._crew.share(len(leaves), read, lambda n: self._say(before + min(n * way.leaf, len(memory))))
        self._done = before + len(memory)
        if way.whole(len(memory), leaves) != saved.digest:
            self._mark(name)
            raise Damaged(CHANGED)
        identity = Identity.of(os.fstat(file))
        self._close(name)
        self.pieces.append(Piece(self._folder / name, identity, len(memory), tuple(leaves)))

    def _mark(self, name: str) -> None:
        """Change the time of a damaged file: a kernel that knows it shall not build the next save on it."""
        with contextlib.suppress(OSError):
            os.utime(self._folder / name, (0, 0), follow_symlinks=False)

    def _first_format(self, part: ComponentPart) -> Read:
        """Version 1: one digest over a large body with everything in it, read by one thread."""
        file, digest = self._file(part.file), hashlib.sha256()
        stream, position = bytearray(part.stream), part.stream
        self._digested(file, memoryview(stream), part.offset, digest)
        buffers: list[Any] = []
        for buffer in part.buffers:
            if not position <= buffer.offset < position + 64:
                raise Damaged("Its list of contents is damaged.")
            digest.update(_exactly(file, buffer.offset - position, part.offset + position))
            held, memory = _allocate(buffer)
            self._digested(file, memory, part.offset + buffer.offset, digest)
            buffers.append(held)
            position = buffer.offset + buffer.nbytes
        if position != part.length:
            raise Damaged("Its list of contents is damaged.")
        if digest.hexdigest() != part.sha256:
            raise Damaged(CHANGED)
        return Read(part, memoryview(stream), buffers)

    def _digested(self, file: int, memory: memoryview, offset: int, digest: Any) -> None:
        for start in range(0, len(memory), STEP_BYTES):
            step = memory[start : start + STEP_BYTES]
            _into(file, step, offset + start)
            digest.update(step)
            self._note(len(step))

    def _file(self, name: str) -> int:
        if name not in self._open:
            file = self._open[name] = open_regular(self._folder / name)
            if os.fstat(file).st_size != self._manifest.files[name]:
                raise Damaged("One of its files is shorter or longer than it was.")
        return self._open[name]

    def _close(self, name: str) -> None:
        os.close(self._open.pop(name))

    def _note(self, nbytes: int) -> None:
        self._done += nbytes
        self._say(self._done)

    def _say(self, done: int) -> None:
        self._progress(done)


def _exactly(file: int, size: int, offset: int) -> bytes:
    data = os.pread(file, size, offset)
    if len(data) != size:
        raise Damaged(CUT_OFF)
    return data


def _into(file: int, memory: memoryview, offset: int) -> None:
    while memory:
        got = os.preadv(file, [memory], offset)
        if not got:
            raise Damaged(CUT_OFF)
        memory, offset = memory[got:], offset + got


def _allocate(buffer: BufferPart) -> tuple[Any, memoryview]:
    """Return what the loader gets for this buffer, and its memory."""
    if buffer.array is None:
        plain = bytearray(buffer.nbytes)
        memory = memoryview(plain)
        return (plain if buffer.writable else memoryview(plain).toreadonly()), memory
    try:
        import numpy as np

        dtype, shape, order = buffer.array
        made: Any = np.empty(tuple(shape), np.dtype(dtype), order)
        flat: Any = made.reshape(-1, order="A").view(np.uint8)
        if flat.nbytes != buffer.nbytes:
            raise ValueError("sizes differ")
        return made, memoryview(flat)
    except (ImportError, TypeError, ValueError) as error:
        raise Damaged("Its arrays cannot be made with this NumPy.") from error
