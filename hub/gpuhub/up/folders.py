"""The data folder and the runtime folder: made, owned, locked.

The data folder belongs to one running gpuhub at a time (a lock that a crash lets go of by itself).
The runtime folder is short, because Unix sockets live in it, and follows from the data folder's path,
so that the next start finds the sockets and units of the last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from pathlib import Path

from gpuhub.up.options import UpRefused

SUBFOLDERS = ("homes", "launcher", "logs", "run")


class DataFolder:
    """The folder ``path``, owned by ``uid``. `open` makes and locks it."""

    def __init__(self, path: Path, uid: int, gid: int) -> None:
        self.path, self.uid, self.gid = path, uid, gid
        self._lock: int | None = None

    def open(self) -> None:
        """Make what is missing and take the lock. Raises `UpRefused`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UpRefused(
                f"The data folder {self.path} cannot be made: {error.strerror}.",
                "Choose another with --data.",
            ) from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise UpRefused(
                f"The data folder {self.path} is not writable.",
                "Mend its rights, or choose another with --data.",
            )
        try:
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpRefused(
                f"Another gpuhub is running with the data folder {self.path}.",
                "Stop it first, or choose another folder with --data.",
            ) from None
        except OSError as error:
            raise UpRefused(f"The data folder {self.path} cannot be used: {error.strerror}.") from None
        os.chmod(self.path, 0o700)
        self.give(self.path)
        for name in SUBFOLDERS:
            self.folder(name)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def folder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        self.give(path)
        return path

    def open_to_traversal(self) -> None:
        """Let other accounts pass through to their own homes (0711: nothing can be listed)."""
        os.chmod(self.path, 0o711)
        os.chmod(self.path / "homes", 0o711)

    def write(self, name: str, text: str, *, root_only: bool = False) -> Path:
        """Write a 0600 file in one step, the service account's (``root_only``: this account's)."""
        path = self.path / name
        aside = path.with_name(path.name + ".new")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o600)
        if not root_only:
            self.give(aside)
        os.replace(aside, path)
        return path

    def give(self, path: Path) -> None:
        """Make it the service account's, where this process may."""
        info = path.lstat()
        if os.geteuid() == 0 and not stat.S_ISLNK(info.st_mode) and info.st_uid != self.uid:
            os.chown(path, self.uid, self.gid)


def runtime_folder(data: Path, uid: int) -> Path:
    """Return the runtime folder that belongs to ``data``."""
    digest = hashlib.sha256(str(data).encode()).hexdigest()[:8]
    if os.geteuid() == 0:
        return Path(f"/run/gpuhub-{digest}")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not base or len(base) > 24 or not os.access(base, os.W_OK):
        base = "/tmp"
    return Path(base) / f"gpuhub-{uid}-{digest}"


def make_runtime_folder(path: Path, *, traversable: bool) -> None:
    """Make it and check that nobody else made it before us. Raises `UpRefused`."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        info = path.lstat()
    except OSError as error:
        raise UpRefused(f"The runtime folder {path} cannot be made: {error.strerror}.") from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise UpRefused(
            f"The runtime folder {path} belongs to somebody else.", "Remove it, or use another --data."
        )
    os.chmod(path, 0o711 if traversable else 0o700)
