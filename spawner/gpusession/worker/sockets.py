"""Unix sockets in folders whose path is too long for them (108 bytes).

The folder is opened, and the socket named below ``/proc/self/fd``: the same file, a short path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bound(path: Path) -> socket.socket:
    """Return a socket that is bound to ``path`` (what was there is removed), 0600. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as short:
            made.bind(short)
        path.chmod(0o600)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


async def connected(path: Path) -> socket.socket:
    """Return a socket that is connected to ``path``. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setblocking(False)
        with _short(path) as short:
            await asyncio.get_running_loop().sock_connect(made, short)
    except BaseException:
        made.close()
        raise
    return made
