"""Memory that the machine really has, before something is measured.

A virtual machine gets memory from its host at the first touch, and may give back what has been free for
two seconds (free page reporting). Measured on one: a gigabyte of NumPy's huge pages costs 0.12 s where the
machine has it and 2 to 5 s where it must ask its host, in whoever comes first. So what a large
measurement will need is touched just before.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from types import TracebackType
from typing import Self

PAGE = 4096
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


class Reserve:
    """So many bytes of huge pages, touched and held until `release`: who comes next finds them."""

    def __init__(self, size: int) -> None:
        self._memory: mmap.mmap | None = None
        if size:
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._memory.madvise(mmap.MADV_HUGEPAGE)
            self._memory[::PAGE] = bytes(len(range(0, size, PAGE)))

    def release(self) -> None:
        """Give it back to this machine. Twice does no harm."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def warm_heap(size: int) -> None:
    """Give this process so much free memory that it keeps: what is allocated next costs no page faults."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    memory = bytearray(size)
    memory[::PAGE] = bytes(len(range(0, size, PAGE)))


def warm_files(folder: Path, size: int) -> None:
    """Let the page cache have had so much: writes a file and removes it before it reaches the disk."""
    path = folder / "warm"
    piece = bytes(4 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, len(piece)):
            file.write(piece)
    path.unlink()
