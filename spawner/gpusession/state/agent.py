"""The agent inside a kernel: tells, saves and loads the kernel's variables.

Exists because only the kernel's own process can read and write its objects. Promises: nothing that it
does adds names to the person's namespace, counts as a cell, or prints; a failed save leaves the disk
as it was and a failed load the namespace; every refusal is one of `gpulease.errors`.
"""

from __future__ import annotations

import platform
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from IPython.utils.capture import capture_output

import gpulease
from gpulease import errors
from gpusession.state import background, notebook, replay
from gpusession.state.background import Background
from gpusession.state.capture import Capture, Verdicts, quietly
from gpusession.state.digests import best
from gpusession.state.disk import Disk
from gpusession.state.known import Known
from gpusession.state.manifest import ID, Manifest
from gpusession.state.modules import import_all, used_modules
from gpusession.state.patience import Patience
from gpusession.state.pickling import Broken
from gpusession.state.reading import read_manifest
from gpusession.state.restore import Restore
from gpusession.state.writing import SnapshotWriter, disk_error

Progress = Callable[[int, int | None], None]
PATIENCE_SECONDS = 20.0
"""A variable that shows no sign of life for so long when it is asked for its state is left."""


class StateAgent:
    """Handles the operations that `gpusession.kernels.ports.Agent` documents."""

    def __init__(
        self,
        shell: Any,
        *,
        now: Callable[[], datetime],
        make_id: Callable[[], str],
        patience_seconds: float = PATIENCE_SECONDS,
        disk: Disk | None = None,
        draw_bits: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._shell, self._now, self._make_id = shell, now, make_id
        self._patience_seconds = patience_seconds
        self._disk = disk or Disk()
        self._known = Known(best(draw_bits))
        self._background = Background(self._learn)
        self._operations: dict[str, Callable[[dict[str, Any], Progress], dict[str, Any]]] = {
            "check": self._check,
            "save": self._save,
            "automatic": self._automatic,
            "background": self._look_at_background,
            "load": self._load,
            "prepare": self._prepare,
            "plan": self._plan,
            "rebuild": self._rebuild,
            "modules": self._modules,
            "ping": self._ping,
        }

    def handle(self, op: str, content: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Run one operation. All but looks (`background`, `plan`, `modules`, `ping`) in the main thread."""
        operation = self._operations.get(op)
        if operation is None:
            raise errors.BadRequest(f"The kernel's agent knows no operation {op!r}.")
        return operation(content, progress)

    def _ping(self, _content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        return {"agent": gpulease.__version__, "python": platform.python_version()}

    def _modules(self, _content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        return {"modules": used_modules(list(notebook.variables(self._shell).values()))}

    def _prepare(self, content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        names = content.get("modules")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise errors.BadRequest("The modules to import are a list of names.")
        with quietly():
            return {"failed": import_all(names)}

    def _check(self, _content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        """What a save would do, at the price of looking: large arrays are neither copied nor written."""
        with quietly():
            return self._looked()

    def _looked(self) -> dict[str, Any]:
        capture = self._capture()
        try:
            return {"verdicts": capture.verdicts(), "bytes": capture.total_bytes}
        finally:
            capture.release()

    def _capture(self) -> Capture:
        try:
            return Capture(self._shell, self._patience_seconds)
        except Broken as error:
            raise error.cause from error

    def _save(self, content: dict[str, Any], progress: Progress) -> dict[str, Any]:
        folder, meta, accept = content.get("folder"), content.get("meta"), content.get("accept", "none")
        if not isinstance(folder, str) or not folder or not isinstance(meta, dict):
            raise errors.BadRequest("A save needs a folder and what to write about the notebook.")
        self._background.stop()
        names = accept if isinstance(accept, list) else None
        if accept not in ("all", "none") and names is None:
            raise errors.BadRequest('What may stay behind is "all", "none" or a list of names.')
        accepted = None if accept == "all" else set(names or [])
        with quietly():
            return self._saved(Path(folder), self._new_id(), meta, accepted, progress)

    def _new_id(self) -> str:
        snapshot_id = self._make_id()
        if not ID.match(snapshot_id):
            raise errors.BadRequest("This is no name for a saved state.")
        return snapshot_id

    def _automatic(self, content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        """Begin to save beside the kernel; ``forked`` False where that cannot be: ``save`` instead."""
        base, meta = content.get("folder"), content.get("meta")
        if not isinstance(base, str) or not base or not isinstance(meta, dict):
            raise errors.BadRequest("A save needs a folder and what to write about the notebook.")
        why = background.possible() if content.get("fork", True) else "a copy of it has failed before"
        if why is not None:
            return {"forked": False, "why": why}
        folder, snapshot_id = Path(base), self._new_id()

        def work(alive: Progress) -> tuple[dict[str, Any], Any]:
            with quietly():
                saved = self._saved(folder, snapshot_id, meta, None, alive)
            del saved["verdicts"]  # they stand in the list of contents
            return saved, (self._known.digesting, [*self._known])

        def clean() -> None:
            self._disk.remove(folder / f".{snapshot_id}.new")

        forked = self._background.start(work, told, clean)
        return {"forked": forked, "snapshot": snapshot_id, "why": None if forked else "there is no room"}

    def _learn(self, knowledge: Any) -> None:
        """The copy has saved: its pieces need not be written again."""
        digesting, pieces = knowledge
        if digesting == self._known.digesting:
            self._known.replace(pieces)

    def _plan(self, content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        """Which cells to run again; nothing is run."""
        return replay.plan(self._shell, _names(content.get("names")))

    def _rebuild(self, content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        """Run the cells that the person has agreed to. Raises Conflict if others would be needed now."""
        cells = content.get("cells")
        if not isinstance(cells, list) or not all(type(one) is int for one in cells):
            raise errors.BadRequest("The cells to run again are a list of their numbers.")
        planned = self._plan(content, _progress)
        if cells != [one["number"] for one in planned["cells"]]:
            raise errors.Conflict(
                "What is needed to make these variables again has changed meanwhile.",
                hint="Look at the cells again, then agree once more.",
            )
        return replay.run(self._shell, cells, capture_output)

    def _look_at_background(self, _content: dict[str, Any], _progress: Progress) -> dict[str, Any]:
        outcome = self._background.outcome
        return {"running": self._background.running and outcome is None, "outcome": outcome}

    def _saved(
        self,
        folder: Path,
        snapshot_id: str,
        meta: dict[str, Any],
        accepted: set[str] | None,
        progress: Progress,
    ) -> dict[str, Any]:
        """A function of its own: what it made is gone before the garbage collector looks again."""
        capture = self._capture()
        total: int | None = None

        def expect(size: int | None) -> None:
            nonlocal total
            total = size

        def written(done: int) -> None:
            progress(done, max(done, total) if total is not None else None)

        try:
            if accepted is not None:
                _need_consent(capture.verdicts(), accepted)
            with SnapshotWriter(folder, snapshot_id, self._disk, self._known, written) as writer:
                capture.write(writer, expect)
                verdicts = capture.verdicts()
                _need_consent(verdicts, accepted)
                size, created = writer.total, self._now().isoformat()
                writer.finish(capture.manifest(snapshot_id, meta, created, size, verdicts))
        except Broken as error:
            if isinstance(error.cause, OSError):
                raise disk_error(error.cause) from error
            raise error.cause from error
        finally:
            capture.release()
        progress(size, size)
        return {"snapshot": snapshot_id, "bytes": size, "written": writer.written, "verdicts": verdicts}

    def _load(self, content: dict[str, Any], progress: Progress) -> dict[str, Any]:
        folder, names = content.get("folder"), content.get("names")
        if not isinstance(folder, str) or not folder:
            raise errors.BadRequest("A load needs the folder of a saved state.")
        if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
            raise errors.BadRequest("The variables to load are a list of names.")
        self._background.stop()
        with quietly():
            manifest = read_manifest(Path(folder))
            known = {one["name"] for one in manifest.verdicts}
            unknown = [name for name in names or () if name not in known]
            if unknown:
                raise errors.NotFound(f"This saved state has no variable {unknown[0]}.")
            patience = Patience(max(self._patience_seconds * 3, manifest.bytes / 5e6))
            load = Restore(self._shell, Path(folder), manifest, patience)
            verdicts = load.run(names, progress)
            self._remember(load, manifest)
            sys.stdout.flush()
            return {"verdicts": verdicts}

    def _remember(self, load: Restore, manifest: Manifest) -> None:
        """What was loaded need not be written again by the next save, as far as it stays as it is."""
        ways = {one.digesting for one in manifest.pieces.values()}
        if not self._known and len(ways) == 1:
            self._known = Known(ways.pop())
        for piece in load.pieces:
            if manifest.pieces[piece.path.name].digesting == self._known.digesting:
                self._known.add([piece])


def told(error: BaseException) -> dict[str, Any]:
    """Return an answer that tells of this failure."""
    if isinstance(error, errors.GpuhubError):
        return {
            "status": "error",
            "code": error.code,
            "message": error.message,
            "details": error.details,
            "hint": error.hint,
        }
    if isinstance(error, KeyboardInterrupt):
        return {"status": "error", "code": "conflict", "message": "It was interrupted.", "details": {}}
    text = "The state agent failed for a reason of ours."
    return {"status": "error", "code": "internal", "message": text, "details": {}}


def _names(names: Any) -> list[str] | None:
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise errors.BadRequest("The variables are a list of names.")
    return names


def _is_asked(verdict: dict[str, Any]) -> bool:
    """Does it need consent that this stays behind? What the person excluded does not."""
    return verdict["verdict"] == "left" and not verdict.get("excluded")


def _need_consent(verdicts: Verdicts, accepted: set[str] | None) -> None:
    if accepted is None:
        return
    left = [one["name"] for one in verdicts if _is_asked(one) and one["name"] not in accepted]
    if left:
        count = "1 variable" if len(left) == 1 else f"{len(left)} variables"
        raise errors.LeftNeedsConsent(
            f"{count} cannot be saved: {', '.join(left[:5])}{' …' if len(left) > 5 else ''}.",
            verdicts=verdicts,
        )
