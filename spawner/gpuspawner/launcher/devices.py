"""Who may open which GPU: device files opened to a lease's account by ACL, and closed after it.

Level-triggered like everything here: `DeviceFiles.apply` is told which accounts hold which devices
*now*, and makes the files agree, whatever an earlier launcher, a driver reload or an operator did
to them. With ``restrict`` (root, real machines) everybody else loses access while gpuhub runs; what
the files were before is written down first and put back by `restore`.

A file that is open stays open for its process, so closing the ACL is not enough: `holders` names
the processes of an account that still hold a device, for the launcher to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

ACL = "system.posix_acl_access"
CLOSED = "u::rw-\ng::---\no::---\n"
TOOL_SECONDS = 10


class AclFailed(Exception):
    """An ACL could not be read or set. The message names the file and what setfacl said."""


def read_acl(path: Path) -> str:
    """Return the file's ACL in the text form that `set_acl` takes."""
    return _tool(["getfacl", "--omit-header", "--numeric", "--absolute-names", "--", str(path)], None, path)


def set_acl(path: Path, acl: str) -> None:
    """Make ``acl`` the file's whole ACL."""
    _tool(["setfacl", "--set-file=-", "--", str(path)], acl, path)


def _tool(command: list[str], text: str | None, path: Path) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AclFailed(f"{path}: {error}") from error
    if done.returncode != 0:
        raise AclFailed(f"{path}: {done.stderr.strip()[:500]}")
    return done.stdout


class DeviceFiles:
    """The managed device files of this machine.

    ``devices`` maps a device id to its own files, ``shared`` are those that every holder needs.
    ``memory`` is the file that remembers what was there before. Without ``manage`` (a launcher that
    is not root, or one account for everybody) nothing is ever touched.
    """

    def __init__(
        self,
        devices: Mapping[str, Collection[Path]],
        shared: Collection[Path],
        *,
        memory: Path,
        manage: bool,
        restrict: bool,
        log: Callable[..., None],
    ) -> None:
        self._devices = {device: tuple(paths) for device, paths in devices.items()}
        self._shared = tuple(shared)
        self._memory = memory
        self._manage = manage
        self._restrict = restrict
        self._log = log
        self._before: dict[str, str] = {}
        self._applied: dict[Path, tuple[frozenset[int], bytes | None, int]] = {}
        if manage:
            self._recall()

    def known(self, device: str) -> bool:
        return device in self._devices

    def apply(self, holders: Mapping[str, int]) -> bool:
        """Make the files agree with ``holders`` (device id -> uid). Return whether they now do."""
        if not self._manage:
            return True
        wanted: dict[Path, set[int]] = {path: set() for path in self._paths()}
        for device, uid in holders.items():
            own = self._devices.get(device, ())
            for path in (*own, *(self._shared if own else ())):
                wanted[path].add(uid)
        good = True
        for path, uids in wanted.items():
            try:
                self._agree(path, frozenset(uids))
            except AclFailed as error:
                good = False
                self._log("device-acl-failed", level="error", error=str(error))
        return good

    def restore(self) -> None:
        """Put back what the files were before the first launcher touched them."""
        for name, acl in list(self._before.items()):
            try:
                if Path(name).exists():
                    set_acl(Path(name), acl)
                del self._before[name]
                self._log("device-restored", path=name)
            except AclFailed as error:
                self._log("device-acl-failed", level="error", error=str(error))
        self._applied.clear()
        self._remember()

    def holders(self, device: str, uid: int) -> list[int]:
        """Return the processes of ``uid`` that hold the device's own files open or mapped."""
        if not self._manage:
            return []
        files = {
            (info.st_dev, info.st_ino) for path in self._devices.get(device, ()) if (info := _stat(path))
        }
        if not files:
            return []
        return [
            int(name)
            for name in os.listdir("/proc")
            if name.isdigit()
            and (info := _stat(f"/proc/{name}"))
            and info.st_uid == uid
            and _holds(name, files)
        ]

    def _paths(self) -> list[Path]:
        paths = [path for paths in self._devices.values() for path in paths]
        return [path for path in dict.fromkeys([*paths, *self._shared]) if path.exists()]

    def _agree(self, path: Path, uids: frozenset[int]) -> None:
        state = (uids, _raw(path), _mode(path))
        if self._applied.get(path) == state:
            return
        before = self._before.get(str(path))
        if before is None:
            if not uids and not self._restrict:
                return  # never touched, nothing wanted
            before = self._before[str(path)] = read_acl(path)
            self._remember()
        base = CLOSED if self._restrict else before
        replaced = ("mask:", *(f"user:{uid}:" for uid in uids))
        lines = [line for line in base.splitlines() if line and not line.startswith(replaced)]
        lines += [f"user:{uid}:rw-" for uid in sorted(uids)]
        if any(not line.startswith(("user::", "u::", "group::", "g::", "other::", "o::")) for line in lines):
            lines.append("mask::rw-")
        set_acl(path, "\n".join(lines) + "\n")
        self._applied[path] = (uids, _raw(path), _mode(path))
        self._log("device-opened" if uids else "device-closed", path=str(path), uids=sorted(uids))

    def _recall(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            before = json.loads(self._memory.read_text())
            if isinstance(before, dict):
                self._before = {str(name): str(acl) for name, acl in before.items()}

    def _remember(self) -> None:
        aside = self._memory.with_suffix(".new")
        aside.write_text(json.dumps(self._before))
        os.replace(aside, self._memory)


def _stat(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _mode(path: Path) -> int:
    info = _stat(path)
    return info.st_mode if info else 0


def _raw(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, ACL)
    except OSError:
        return None


def _holds(pid: str, files: Collection[tuple[int, int]]) -> bool:
    for folder in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            info = _stat(f"{folder}/{name}")
            if info is not None and (info.st_dev, info.st_ino) in files:
                return True
    return False
