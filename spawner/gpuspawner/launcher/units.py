"""What the launcher remembers of one unit, on disk and in memory.

On disk, in ``<state>/<unit id>/`` (the launcher's own, 0700): ``unit.json`` (this file's `Record`),
``keeper.json`` and ``exit.json`` (written by the unit's keeper), ``log``. No environment, no file
content and no password is ever among it. All times that decide something count from the boot, so
that a clock that jumps ends nothing; a record of another boot describes a unit that is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gpuspawner.launcher.proctable import Identity, ProcessTable, alive
from gpuspawner.launcher.protocol import Account, UnitKind


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def since_boot() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Record(BaseModel):
    """``unit.json``."""

    model_config = ConfigDict(extra="ignore")

    id: str
    kind: UnitKind
    account: Account
    prefix: str
    label: str = ""
    devices: tuple[str, ...]
    grace_seconds: float
    started_at: float
    """UNIX seconds, for people."""
    boot: str
    run: str
    """The random word of this start, in the environment of each of its processes."""
    kill_at: float | None = None
    """Seconds since boot after which all its processes are killed. None: nobody asked to stop it."""
    told: bool = False
    """SIGTERM was sent."""
    gone: bool = False
    """Not one of its processes exists, and its devices are closed."""
    message: str = ""


@dataclass
class Unit:
    """One unit: the record, and what this launcher has seen of it."""

    record: Record
    folder: Path
    """Of its memory, not the account's folder."""
    keeper: Identity | None = None
    main: Identity | None = None
    exit_status: int | None = None
    starting: bool = False
    """Its keeper has not answered yet."""
    known: set[Identity] = field(default_factory=set)
    """Processes seen as its own: what is left to go by if somebody kills the keeper."""
    empty_since: float | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def stopping(self) -> bool:
        return self.record.gone or self.record.kill_at is not None or self.main_ended

    @property
    def main_ended(self) -> bool:
        return not self.starting and not alive(self.main)

    def save(self) -> None:
        aside = self.folder / "unit.json.new"
        with open(aside, "w") as file:
            file.write(self.record.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.folder / "unit.json")

    def read_keeper(self) -> None:
        """Take over what the keeper wrote, as far as it is there."""
        said = _read(self.folder / "keeper.json")
        if self.keeper is None and "keeper" in said and "main" in said:
            self.keeper = Identity(*said["keeper"])
            self.main = Identity(*said["main"])
        if self.exit_status is None:
            status = _read(self.folder / "exit.json").get("status")
            self.exit_status = status if isinstance(status, int) else None

    def members(self, table: ProcessTable, *, thorough: bool) -> set[Identity]:
        """Return its living processes, without the keeper.

        ``thorough`` also reads the environment of every process of the account; it is needed
        where the keeper is gone, and before a unit is said to have ended.
        """
        candidates = self.known | ({self.keeper, self.main} - {None})
        roots = {identity for identity in candidates if identity and table.get(identity) is not None}
        found = roots | table.descendants(roots)
        if self.main is not None:
            found |= table.session_of(self.main)
        if thorough:
            found |= table.marked(self.record.run, self.record.account.uid)
        living = {
            identity
            for identity in found
            if identity != self.keeper and not table.by_pid[identity.pid].zombie
        }
        self.known = living
        return living

    def erase(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def load_units(state: Path) -> list[Unit]:
    """Return the units that an earlier launcher wrote down. What cannot be read is left alone."""
    found = []
    for folder in sorted(state.iterdir()):
        try:
            record = Record.model_validate_json((folder / "unit.json").read_text())
        except (OSError, ValueError):
            continue
        if record.id == folder.name:
            found.append(Unit(record, folder))
    return found


def _read(path: Path) -> dict:  # type: ignore[type-arg]
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
