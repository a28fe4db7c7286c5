"""The snapshots in a person's home: what is there, what may go.

Promises: nothing is unpickled here, and whatever lies in the folder (huge, deep, linked, half
written, written by somebody else) is at worst a damaged entry of the list. The newest complete
snapshot of a notebook is never pruned. What several snapshots share (files with several names) takes
room once, and only with its last snapshot does it become free: so it is counted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from gpulease import errors
from gpulease.session import SnapshotInfo
from gpusession.state.disk import read_small
from gpusession.state.manifest import ID, MAX_BYTES, NAME, Damaged, Manifest, parse

STALE_SECONDS = 24 * 3600.0
Infos = list[SnapshotInfo]


class SnapshotStore:
    """The folder of one person's snapshots.

    ``keep_per_notebook``: how many of a notebook stay. ``keep_bytes``: what all may take together.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_per_notebook: int = 5,
        keep_bytes: float = 20e9,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = folder
        self.keep_per_notebook, self.keep_bytes, self._now = keep_per_notebook, keep_bytes, now

    def total_bytes(self) -> int:
        """What all of them take on the storage."""
        return _Held(_files(path) for path in self._folders()).nbytes

    def list(self) -> Infos:
        """Newest first; damaged and unfinished ones have ``complete`` False and a problem."""
        found = []
        for path in self._folders():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                found.append(self._info(path))
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    def _folders(self) -> Sequence[Path]:
        try:
            entries = [*os.scandir(self.folder)]
        except OSError:
            return []
        return [Path(one.path) for one in entries if ID.match(one.name) and one.is_dir(follow_symlinks=False)]

    def _info(self, folder: Path) -> SnapshotInfo:
        changed = datetime.fromtimestamp(folder.lstat().st_mtime, UTC)
        try:
            manifest = self._whole(folder)
            return SnapshotInfo(
                id=folder.name,
                notebook=manifest.notebook,
                kernel=manifest.kernel,
                created_at=_time(manifest.created_at),
                reason=manifest.reason,  # type: ignore[arg-type]  # checked by the model
                bytes=sum(_files(folder).values()),
                python=manifest.python,
                complete=True,
                kept=sum(one.get("verdict") != "left" for one in manifest.verdicts),
                left=sum(one.get("verdict") == "left" for one in manifest.verdicts),
                verdicts=manifest.verdicts,  # type: ignore[arg-type]
            )
        except (Damaged, ValidationError, ValueError, OSError) as error:
            problem = str(error) if isinstance(error, Damaged) else "Its list of contents is damaged."
            if isinstance(error, OSError):
                problem = "It was never finished." if not (folder / NAME).exists() else "It cannot be read."
        return SnapshotInfo(
            id=folder.name,
            notebook=None,
            kernel="",
            created_at=changed,
            reason="manual",
            bytes=sum(_files(folder).values()),
            python="",
            complete=False,
            problem=problem,
            kept=0,
            left=0,
        )

    def _whole(self, folder: Path) -> Manifest:
        """Raises Damaged, OSError."""
        manifest = parse(read_small(folder / NAME, MAX_BYTES))
        if manifest.id != folder.name:
            raise Damaged("It was saved under another name.")
        for name, size in manifest.files.items():
            try:
                status = (folder / name).lstat()
            except FileNotFoundError:
                raise Damaged("One of its files is missing.") from None
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise Damaged("One of its files is shorter or longer than it was.")
        return manifest

    def delete(self, snapshot_id: str) -> None:
        """Raises NotFound."""
        folder = self.folder / snapshot_id
        if not ID.match(snapshot_id) or folder.is_symlink() or not folder.is_dir():
            raise errors.NotFound("This saved state is not there any more.")
        # First out of sight, then away: a half-deleted one is never offered.
        aside = self.folder / f".{snapshot_id}.gone"
        with contextlib.suppress(OSError):
            folder.rename(aside)
            folder = aside
        shutil.rmtree(folder, ignore_errors=True)

    def prune(self) -> Sequence[str]:
        """Delete what exceeds the limits, oldest first, and what was left half written; return the ids."""
        self._sweep()
        whole = [one for one in self.list() if one.complete]
        newest: dict[str, str] = {}
        count: dict[str, int] = {}
        doomed: Infos = []
        for one in whole:
            whose = _whose(one)
            newest.setdefault(whose, one.id)
            count[whose] = count.get(whose, 0) + 1
            if count[whose] > max(1, self.keep_per_notebook):
                doomed.append(one)
        files = {one.id: _files(self.folder / one.id) for one in whole if one not in doomed}
        held = _Held(files.values())
        over: Infos = []
        for one in reversed(whole):
            if held.nbytes <= self.keep_bytes:
                break
            if one not in doomed and newest[_whose(one)] != one.id:
                held.drop(files[one.id])
                over.append(one)
        for one in reversed(over):  # what shares its bytes with others may have gone for nothing
            held.take(files[one.id])
            if held.nbytes > self.keep_bytes:
                held.drop(files[one.id])
                doomed.append(one)
        for one in doomed:
            with contextlib.suppress(errors.NotFound):
                self.delete(one.id)
        return [one.id for one in doomed]

    def _sweep(self) -> None:
        """Remove what a save or a deletion that died left behind, once it is a day old."""
        limit = self._now().timestamp() - STALE_SECONDS
        with contextlib.suppress(OSError):
            for one in [*os.scandir(self.folder)]:
                old = one.stat(follow_symlinks=False).st_mtime < limit
                left_over = one.name.startswith(".") and one.name.endswith((".new", ".gone"))
                if old and left_over and one.is_dir(follow_symlinks=False):
                    shutil.rmtree(one.path, ignore_errors=True)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Files = dict[tuple[int, int], int]
"""The sizes of files, by what tells that two names are one file."""


def _files(folder: Path) -> Files:
    found: Files = {}
    with contextlib.suppress(OSError):
        for one in os.scandir(folder):
            status = one.stat(follow_symlinks=False)
            found[status.st_dev, status.st_ino] = status.st_size
    return found


class _Held:
    """The files of several snapshots, each counted once."""

    def __init__(self, snapshots: Iterable[Files]) -> None:
        self._names: Counter[tuple[int, int]] = Counter()
        self.nbytes = 0
        for files in snapshots:
            self.take(files)

    def take(self, files: Files) -> None:
        for file, size in files.items():
            self.nbytes += 0 if self._names[file] else size
            self._names[file] += 1

    def drop(self, files: Files) -> None:
        for file, size in files.items():
            self._names[file] -= 1
            self.nbytes -= 0 if self._names[file] else size


def _whose(one: SnapshotInfo) -> str:
    """What belongs together: a notebook's, or those of a kernel without one."""
    return one.notebook or f"kernel {one.kernel}"
