"""One broker per database file: a lock beside it, which the system drops when its process ends.

For databases behind a server there is no file, and no lock here (but in `advisory`): `DatabaseLock.of` says
so with None.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from sqlalchemy.engine import make_url

LOOK_SECONDS = 2.0

log = logging.getLogger(__name__)


class DatabaseLock:
    """Held by this process, or by another one. The file stays: it says nothing by being there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @classmethod
    def of(cls, url: str) -> DatabaseLock | None:
        """Return the lock of a database file; None where the database is no file."""
        parts = make_url(url)
        if parts.get_backend_name() != "sqlite" or not parts.database or parts.database == ":memory:":
            return None
        return cls(Path(f"{parts.database}.lock"))

    def leads(self) -> bool:
        return self._fd is not None

    async def acquire(self) -> None:
        """Wait for it. Raises `OSError` where the file cannot be made."""
        told = False
        while not self._try():
            if not told:
                told = True
                log.warning("another broker uses the database; waiting for it to end (%s)", self._path)
            await asyncio.sleep(LOOK_SECONDS)

    def _try(self) -> bool:
        if self._fd is not None:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return True

    async def hold(self) -> None:
        """It cannot be lost while this process lives."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
