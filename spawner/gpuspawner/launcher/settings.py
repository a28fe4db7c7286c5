"""The launcher's settings: one JSON file, written by `gpuhub up` and read once at start.

Whoever can write this file decides what may run as whom, so it must belong to the launcher's
account and be writable for nobody else; `load` refuses any other.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from gpuspawner.launcher.accounts import AccountPolicy


class LauncherSettings(BaseModel):
    """What the launcher may do. Every path is absolute."""

    model_config = ConfigDict(extra="forbid")

    socket: Path = Field(description="The Unix socket it listens on (shorter than 108 bytes).")
    runtime: Path = Field(description="Short folder that holds one folder per unit.")
    state: Path | None = Field(
        None,
        description="Folder of its memory; 0700. None: <runtime>/.state, which is right: units do not "
        "outlive the machine's boot. As root, one that another account could exchange is not used.",
    )
    allowed_uids: list[int] = Field(
        default_factory=list, description="Accounts that may ask, beside the launcher's own."
    )
    accounts: AccountPolicy = AccountPolicy.model_validate({})
    prefixes: list[Path] = Field(default_factory=list, description="Python prefixes that units may run in.")
    prefixes_file: Path | None = Field(
        None,
        description="More of them: a YAML or JSON list of paths, or an environments file "
        "({environments: [{prefix: …}]}). Read again whenever it changes.",
    )
    devices: dict[str, list[Path]] = Field(
        default_factory=dict,
        description="Device id -> files that only the holder of a lease may open. A simulated GPU has none.",
    )
    shared_devices: list[Path] = Field(
        default_factory=list,
        description="Files that every holder of any lease needs (/dev/nvidiactl, /dev/nvidia-uvm).",
    )
    restrict_devices: bool = Field(
        False,
        description="As root: take everybody else's access to those files away while the launcher runs.",
    )
    pam_service: str = Field("login", description="File in /etc/pam.d that decides on passwords.")
    log_bytes: int = Field(
        1024 * 1024,
        ge=4096,
        description="Output kept per unit, bytes. More keeps a longer story of a failure, and more disk.",
    )

    def memory(self) -> Path:
        """Return the folder of its memory.

        What is written there decides which processes are killed and whose devices are opened, so a
        root launcher keeps it where nobody else can move folders about.
        """
        own = self.runtime / ".state"
        if self.state is None:
            return own
        if os.geteuid() == 0:
            ancestors = [path for path in self.state.parents if path.exists()]
            if any(path.stat().st_uid != 0 or _open_to_all(path) for path in ancestors):
                return own
        return self.state


def _open_to_all(path: Path) -> bool:
    mode = path.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


class UnsafeSettings(Exception):
    """The settings cannot be trusted or read. The message says which and why."""


def load(path: Path) -> LauncherSettings:
    """Read the settings. Raises `UnsafeSettings`."""
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            text = file.read()
        if info.st_uid not in (0, os.geteuid()) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnsafeSettings(f"{path} can be written by another account")
        return LauncherSettings.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise UnsafeSettings(f"{path}: {error}") from error


class Prefixes:
    """The Python prefixes that units may run in."""

    def __init__(self, fixed: list[Path], file: Path | None) -> None:
        self._fixed = {str(path) for path in fixed}
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._listed: set[str] = set()

    def allows(self, prefix: str) -> bool:
        """Return whether ``prefix`` is registered, literally: no links are followed, nothing is guessed."""
        return prefix in self._fixed or prefix in self._from_file()

    def _from_file(self) -> set[str]:
        if self._file is None:
            return set()
        try:
            info = self._file.stat()
            stamp = (info.st_mtime_ns, info.st_ino, info.st_size)
            if stamp != self._stamp:
                self._listed = _read_prefixes(self._file)
                self._stamp = stamp
        except OSError:
            self._listed, self._stamp = set(), None
        return self._listed


def _read_prefixes(path: Path) -> set[str]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()
    if isinstance(content, dict):
        content = content.get("environments")
    found = set()
    for entry in content if isinstance(content, list) else ():
        prefix = entry.get("prefix") if isinstance(entry, dict) else entry
        if isinstance(prefix, str) and prefix.startswith("/"):
            found.add(prefix)
    return found
