"""Which saved states a fresh kernel should offer to its person, and which are settled.

A notebook whose kernel went away without its person's doing (the server stopped or was killed,
the worker saved by itself) offers its newest complete snapshot when it is opened again. One that
was restored, dismissed, or whose kernel the person shut down himself is settled and is not
offered again. Promises: the ledger is one small file of ids, written aside and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from gpulease.session import SnapshotInfo

LEDGER = ".settled.json"


class Offers:
    """Reads and writes the ledger in the folder of the snapshots."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settled: set[str] | None = None

    def newest(
        self, snapshots: Iterable[SnapshotInfo], notebook: str, alive: Iterable[str]
    ) -> SnapshotInfo | None:
        """Return the snapshot to offer to a fresh kernel of ``notebook``; None: nothing is open.

        ``alive``: kernels that run now; what they saved is theirs, not an orphan's.
        """
        running = set(alive)
        mine = [one for one in snapshots if one.notebook == notebook and one.complete]
        mine.sort(key=lambda one: one.created_at, reverse=True)
        if not mine or mine[0].id in self._ids() or mine[0].kernel in running or not mine[0].kept:
            return None
        return mine[0]

    def settle(self, ids: Iterable[str], existing: Iterable[str] | None = None) -> None:
        """Remember that these need not be offered; forget those that do not exist any more."""
        settled = self._ids() | set(ids)
        if existing is not None:
            settled &= set(existing)
        self._settled = settled
        aside = self._folder / f"{LEDGER}.new"
        # A ledger that cannot be written offers once too often: not worth an error.
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(sorted(settled), file)
            aside.replace(self._folder / LEDGER)

    def _ids(self) -> set[str]:
        if self._settled is None:
            try:
                found = json.loads((self._folder / LEDGER).read_text())
                self._settled = {one for one in found if isinstance(one, str)}
            except (OSError, ValueError, TypeError):
                self._settled = set()
        return self._settled
