"""The folders of units: made, filled, read and removed without trusting whoever owns them.

A unit's folder ``<runtime>/<unit id>/`` belongs to the unit's account, so anything in it may be a
symbolic link, a FIFO, a hard link to somebody else's file, or a gigabyte of garbage; and the
launcher may be root. Hence: names are resolved below open folders only, the last part never
follows a link, nothing blocks, sizes are bounded, and what is read must be a regular file of the
account itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpulease.errors import Conflict, Unavailable

MAX_READY_BYTES = 64 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def own_folder(path: Path, mode: int) -> None:
    """Make ``path`` a folder of the launcher's own that nobody else can write to.

    Raises `PermissionError` when somebody else was there first (a trap in a shared /tmp).
    """
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a folder of this account")
    if stat.S_IMODE(info.st_mode) != mode:
        path.chmod(mode)


class UnitFolders:
    """All units' folders below ``runtime``."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        # Others only pass through, where there are others at all.
        own_folder(runtime, 0o711 if os.geteuid() == 0 else 0o700)
        self._root = os.open(runtime, _FOLDER)

    def close(self) -> None:
        os.close(self._root)

    def path(self, unit_id: str) -> Path:
        return self.runtime / unit_id

    def make(self, unit_id: str, uid: int, gid: int, files: Mapping[str, str]) -> None:
        """Make the folder afresh with its files, and only then hand it to the account."""
        self.remove(unit_id)
        os.mkdir(unit_id, 0o700, dir_fd=self._root)
        with self._opened(unit_id) as folder:
            for name, text in files.items():
                self._create(folder, name, text, uid, gid)
            if os.geteuid() == 0:
                os.fchown(folder, uid, gid)

    def write(self, unit_id: str, uid: int, gid: int, name: str, text: str) -> None:
        """Put a file into a folder that its owner can change at any moment."""
        aside = f".new-{secrets.token_hex(8)}"
        try:
            with self._opened(unit_id) as folder:
                self._create(folder, aside, text, uid, gid)
                try:
                    os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.unlink(aside, dir_fd=folder)
                    raise
        except OSError as error:
            raise Conflict(f"The file could not be written: {error.strerror}.") from error

    def read_ready(self, unit_id: str, uid: int) -> dict[str, Any] | None:
        """Return what ``ready.json`` says, or None for anything that is not a plain, small JSON object."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            with self._opened(unit_id) as folder:
                fd = os.open("ready.json", flags, dir_fd=folder)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != uid or info.st_size > MAX_READY_BYTES:
                return None
            content = json.loads(os.read(fd, MAX_READY_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        finally:
            os.close(fd)
        return content if isinstance(content, dict) else None

    def remove(self, unit_id: str) -> None:
        """Remove the folder and all in it; it need not exist."""
        try:
            # rmtree works below open folders and follows no link (shutil.rmtree.avoids_symlink_attacks).
            shutil.rmtree(unit_id, dir_fd=self._root)
        except FileNotFoundError:
            return
        except (OSError, RecursionError) as error:
            raise Unavailable(f"The folder of {unit_id} could not be removed.") from error

    @contextlib.contextmanager
    def _opened(self, unit_id: str) -> Any:
        fd = os.open(unit_id, _FOLDER, dir_fd=self._root)
        try:
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _create(folder: int, name: str, text: str, uid: int, gid: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(file.fileno(), uid, gid)


def make_home(homes: Path | None, home: str, uid: int, gid: int) -> None:
    """Make a person's home below ``homes``, 0700, unless it exists. Homes elsewhere are not ours."""
    path = Path(home)
    if homes is None or path.parent != homes or path.name in ("", ".", ".."):
        return
    if not homes.exists():
        homes.mkdir(mode=0o711, parents=True)
        homes.chmod(0o711)
    # The folder of homes may belong to the service account: nothing is given away by a path that it
    # could exchange meanwhile, only a folder that is held open, just made, ours and empty.
    root = os.open(homes, _FOLDER)
    try:
        os.mkdir(path.name, 0o700, dir_fd=root)
        made = os.open(path.name, _FOLDER, dir_fd=root)
    except FileExistsError:
        return
    finally:
        os.close(root)
    try:
        if os.geteuid() == 0 and os.fstat(made).st_uid == 0 and not os.listdir(made):
            os.fchown(made, uid, gid)
    finally:
        os.close(made)


def trim(path: Path, keep_bytes: int) -> None:
    """Cut a log that has outgrown ``keep_bytes`` to its last half.

    Its writers append, so they go on behind what is left; what they write in this very moment can
    be lost, which a bounded log may.
    """
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= keep_bytes:
            return
        file.seek(size - keep_bytes // 2)
        tail = file.read(keep_bytes // 2).partition(b"\n")[2]
        file.seek(0)
        file.truncate(0)
        file.write(b"(earlier output was cut)\n" + tail)


def tail(path: Path, size: int = 4096) -> str:
    """Return the last ``size`` bytes of a log as text."""
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            return file.read(size).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    except OSError:
        return ""
