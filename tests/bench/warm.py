"""Memory that the machine really has, before something is measured.

A virtual machine gets memory from its host page by page, at the first touch, and gives it back when
it has been free for a moment: a gigabyte of fresh memory was seen to cost 0.2 s and 2.5 s, in
whoever came first. So what a gigabyte's measurement will need is touched just before.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

PAGE = 4096
GIGABYTE = 1 << 30
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def warm(gigabytes: int) -> None:
    """Touch so much memory and give it back to this machine."""
    with mmap.mmap(-1, gigabytes * GIGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[::PAGE] = bytes(len(memory) // PAGE)


def warm_heap(size: int) -> None:
    """Give this process so much free memory that it keeps: what is allocated next costs no page faults."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    memory = bytearray(size)
    memory[::PAGE] = bytes(len(memory[::PAGE]))


def warm_files(folder: Path, size: int) -> None:
    """Let the page cache have had so much: writes a file and removes it before it reaches the disk."""
    path = folder / "warm"
    piece = bytes(4 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, len(piece)):
            file.write(piece)
    path.unlink()
