"""Reads a snapshot's bytes and believes none of them before its digest fits.

Promises: what `components` returns was verified whole, and nothing was unpickled for it. Raises
SnapshotUnusable with the reason, or NotFound.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpulease import errors
from gpusession.state.disk import open_regular, read_small
from gpusession.state.manifest import (
    MAX_BYTES,
    NAME,
    BufferPart,
    ComponentPart,
    Damaged,
    Manifest,
    OtherPython,
    parse,
)
from gpusession.state.writing import PIECE, Digest


@dataclass
class Read:
    """One component in memory."""

    part: ComponentPart
    stream: bytes
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


def read_components(
    folder: Path, parts: list[ComponentPart], files: dict[str, int], progress: Callable[[int], None]
) -> list[Read]:
    """Read and verify all parts. Raises SnapshotUnusable; nothing is returned unless all fit."""
    opened: dict[str, int] = {}
    found, done = [], 0
    try:
        for part in parts:
            if part.file not in opened:
                opened[part.file] = open_regular(folder / part.file)
                if os.fstat(opened[part.file]).st_size != files[part.file]:
                    raise Damaged("One of its files is shorter or longer than it was.")
            found.append(_read(opened[part.file], part))
            done += part.length
            progress(done)
    except (Damaged, OSError, MemoryError, EOFError) as error:
        if isinstance(error, MemoryError):
            raise errors.Unavailable(
                "There is not enough memory to load this saved state.", hint="Load some of its variables."
            ) from error
        text = str(error) if isinstance(error, Damaged) else "One of its files cannot be read."
        raise unusable(text) from error
    finally:
        for file in opened.values():
            os.close(file)
    return found


def _read(file: int, part: ComponentPart) -> Read:
    digest = Digest()
    buffers: list[Any] = []
    try:
        stream = bytearray(part.stream) if part.stream > PIECE else None
        if stream is None:
            whole = _exactly(file, part.stream, part.offset)
            digest.add(whole)
        else:
            _into(file, memoryview(stream), part.offset, digest)
            whole = bytes(stream)
            del stream
        position = part.stream
        for buffer in part.buffers:
            if not position <= buffer.offset < position + 64:
                raise Damaged("Its list of contents is damaged.")
            digest.add(_exactly(file, buffer.offset - position, part.offset + position))
            held, memory = _allocate(buffer)
            _into(file, memory, part.offset + buffer.offset, digest)
            buffers.append(held)
            position = buffer.offset + buffer.nbytes
        if position != part.length:
            raise Damaged("Its list of contents is damaged.")
    finally:
        sha256 = digest.done()
    if sha256 != part.sha256:
        raise Damaged("Its contents were changed or damaged after they were saved.")
    return Read(part, whole, buffers)


def _exactly(file: int, size: int, offset: int) -> bytes:
    data = os.pread(file, size, offset)
    if len(data) != size:
        raise Damaged("One of its files is cut off.")
    return data


def _into(file: int, memory: memoryview, offset: int, digest: Digest) -> None:
    position = 0
    while position < len(memory):
        piece = memory[position : position + PIECE]
        got = os.preadv(file, [piece], offset + position)
        if not got:
            raise Damaged("One of its files is cut off.")
        digest.add(piece[:got])
        position += got


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
