"""The disk as the state agent sees it: the one place where a snapshot's bytes are written and read.

A port, so that tests can put in a disk that fills up or a process that dies between two steps.
Promises: private modes from the first byte on; nothing follows a symbolic link.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from gpusession.state.manifest import Damaged

SYNC_FILE_RANGE_WRITE = 2


@functools.cache
def _sync_file_range() -> Any:
    """Return the C library's function: Python has none. None where there is no such (not Linux)."""
    try:
        found = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return found


class Disk:
    """The real one. Everything raises OSError."""

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def write(self, file: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]

    def write_at(self, file: int, data: memoryview, offset: int) -> None:
        """Write in the middle; several threads may do so at once."""
        while data:
            done = os.pwrite(file, data, offset)
            data, offset = data[done:], offset + done

    def begin_sync(self, file: int, offset: int, nbytes: int) -> None:
        """Let the disk begin with this part, without waiting for it. Promises nothing: `sync` does."""
        begin = _sync_file_range()
        if begin is not None:
            begin(file, offset, nbytes, SYNC_FILE_RANGE_WRITE)

    def link(self, old: Path, new: Path) -> os.stat_result:
        """Let the file appear under a second name; return what it is."""
        os.link(old, new, follow_symlinks=False)
        return new.lstat()

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync(self, file: int) -> None:
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def sync_folder(self, folder: Path) -> None:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def remove(self, folder: Path) -> None:
        """Remove a folder as far as possible; never raises."""
        with contextlib.suppress(OSError):
            shutil.rmtree(folder, ignore_errors=True)


def open_regular(path: Path) -> int:
    """Open a file that is what it seems: no link, no pipe, no device. Raises Damaged, OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Damaged("One of its files is not a file.")
    return file


def read_small(path: Path, limit: int) -> bytes:
    """Read a whole file of at most ``limit`` bytes. Raises Damaged, OSError."""
    file = open_regular(path)
    with os.fdopen(file, "rb") as stream:
        if os.fstat(file).st_size > limit:
            raise Damaged("Its list of contents is too large.")
        return stream.read(limit + 1)
