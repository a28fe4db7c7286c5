"""Loads a verified snapshot into a shell: everything, or the named variables, and never half.

The namespace is filled while components are built, since code of the notebook that runs meanwhile
looks its globals up there. If the load as a whole fails, everything is put back as it was. A
component that cannot be built is left, with all its variables; the others are loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpusession.state import definitions, notebook, patches, surroundings
from gpusession.state.capture import Verdicts, title, verdict
from gpusession.state.crew import Crew
from gpusession.state.known import Piece
from gpusession.state.manifest import Manifest
from gpusession.state.patience import Patience, TookTooLong
from gpusession.state.pickling import StateUnpickler, named_anchors, reader
from gpusession.state.reading import Read, Reading

LOST = "Run the cell that makes it again."


class Restore:
    """One load."""

    def __init__(self, shell: Any, folder: Path, manifest: Manifest, patience: Patience) -> None:
        self._shell, self._folder, self._manifest = shell, folder, manifest
        self._patience = patience
        self._anchored = named_anchors(shell)
        self._saved = {one["name"]: one for one in manifest.verdicts}
        self._notes: dict[str, str] = {}
        self._apart: set[str] = set()
        self.pieces: list[Piece] = []
        """Large pieces of memory that were read, once `run` has returned."""

    def run(self, names: list[str] | None, progress: Callable[[int, int | None], None]) -> Verdicts:
        """Raises SnapshotUnusable before anything was touched."""
        wanted = None if names is None else {f"var:{name}" for name in names}
        parts = [part for part in self._manifest.components if wanted is None or wanted & set(part.keys)]
        total = sum(part.nbytes for part in parts)
        with Crew() as crew:
            reading = Reading(self._folder, self._manifest, crew, lambda done: progress(done, total))
            read = reading.components(parts)
        self.pieces = reading.pieces
        read.sort(key=lambda one: one.part.rank)
        standing = definitions.Standing(self._shell.user_ns, names or ())
        part = contextlib.nullcontext() if names is None else definitions.stand(standing)
        self._apart = standing.apart
        with self._all_or_nothing(), self._patience.watching(), part:
            return self._build(read, wanted)

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        space = self._shell.user_ns
        before, path, env = dict(space), list(sys.path), dict(os.environ)
        folder = None
        with contextlib.suppress(OSError):  # it was deleted
            folder = os.getcwd()
        try:
            yield
        except BaseException:
            space.clear()
            space.update(before)
            with contextlib.suppress(OSError):
                if folder is not None:
                    os.chdir(folder)
            sys.path[:] = path
            for name in set(os.environ) - set(env):
                del os.environ[name]
            os.environ.update(env)
            raise

    def _build(self, read: list[Read], wanted: set[str] | None) -> Verdicts:
        failed: dict[str, str] = {}
        settings: dict[str, Any] = {}
        hung: dict[str, Any] = {}
        early = [f"set:{one.name}" for one in surroundings.EARLY]
        first = [one for one in read if set(one.part.keys) & set(early)]
        rest = [one for one in read if one not in first]
        lost: list[dict[str, Any]] = []
        for one in first:
            self._bind(one, wanted, settings, hung, failed)
        for surrounding in surroundings.EARLY:
            self._surround(surrounding, settings, lost)
        again = []
        for one in rest:
            if self._bind(one, wanted, settings, hung, failed) is not None:
                again.append(one)
        for one in again:  # what it needed may have come after it
            self._bind(one, wanted, settings, hung, failed)
        if wanted is None:
            for key, value in hung.items():
                try:
                    patches.restore(self._shell, key, value)
                except Exception as error:  # noqa: BLE001 — named in the verdict
                    lost.append(verdict(title(key), "", None, "left", _why(error), "Set it again."))
            self._shell.execution_count = self._manifest.execution_count
            self._put_in_order()
            for surrounding in surroundings.LATE:
                self._surround(surrounding, settings, lost)
        return self._verdicts(read, wanted, failed) + lost

    def _put_in_order(self) -> None:
        """Variables and results in the order in which they were made: cells go through them, too."""
        space = self._shell.user_ns
        for name in self._saved:
            if name in space:
                space[name] = space.pop(name)
        out = space["Out"]
        results = sorted(out.items(), key=lambda item: item[0] if isinstance(item[0], int) else -1)
        out.clear()
        out.update(results)

    def _surround(self, one: Any, settings: dict[str, Any], lost: Verdicts) -> None:
        if one.name not in settings:
            return
        try:
            one.restore(self._shell, settings[one.name])
        except Exception as error:  # noqa: BLE001 — named in the verdict
            lost.append(verdict(one.title, "", None, "left", _why(error), "Set it again."))

    def _bind(
        self,
        read: Read,
        wanted: set[str] | None,
        settings: dict[str, Any],
        hung: dict[str, Any],
        failed: dict[str, str],
    ) -> BaseException | None:
        """Build one component and bind its variables; on failure unbind them and remember why."""
        space = self._shell.user_ns
        keys = read.part.keys
        names = [key.removeprefix("var:") for key in keys if key.startswith("var:")]
        before = {name: space[name] for name in names if name in space}
        self._apart.clear()
        try:
            with self._patience.limited():
                loader = StateUnpickler(reader(read.stream), iter(read.buffers), self._anchored)
                loader.load()
                values = {}
                for key in keys:
                    values[key] = loader.load()
                    if key.startswith("var:") and (wanted is None or key in wanted):
                        space[key.removeprefix("var:")] = values[key]
        except (Exception, TookTooLong) as error:  # noqa: BLE001 — named in the verdict
            for name in names:
                space.pop(name, None)
            space.update(before)
            for key in keys:
                failed[key] = _why(error)
            return error
        for key in keys:
            failed.pop(key, None)
            if self._apart:
                self._notes[key] = (
                    f"Defined otherwise now, so it is of the saved class: {', '.join(sorted(self._apart))}."
                )
        if wanted is not None:
            return None
        for key, value in values.items():
            kind, _, name = key.partition(":")
            if kind == "out":
                self._shell.user_ns["Out"][int(name)] = value
            elif kind == "under":
                notebook.restore_under(self._shell, name, value)
            elif kind == "set":
                settings[name] = value
            elif kind in patches.KINDS:
                hung[key] = value
        return None

    def _verdicts(self, read: list[Read], wanted: set[str] | None, failed: dict[str, str]) -> Verdicts:
        found = []
        loaded = {key for one in read for key in one.part.keys}
        for name, saved in self._saved.items():
            key = f"var:{name}"
            if wanted is not None and key not in wanted:
                continue
            if key in failed:
                found.append(verdict(name, saved["type"], saved["bytes"], "left", failed[key], LOST))
            elif key in loaded or saved["verdict"] == "left":
                told = " ".join(filter(None, (saved["reason"], self._notes.get(key))))
                found.append({**saved, "reason": told or None})
        found.extend(
            verdict(title(key), "", None, "left", why, "Set it again.")
            for key, why in failed.items()
            if not key.startswith(("var:", "under:")) and wanted is None
        )
        return found


def _why(error: BaseException) -> str:
    if isinstance(error, TookTooLong):
        return "It took too long to load."
    text = " ".join(str(error).split())[:200]
    return f"It could not be loaded: {type(error).__name__}: {text}."
