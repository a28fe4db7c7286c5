"""Turns a shell's variables into components and verdicts, and writes them.

Promises: every variable has exactly one verdict; nothing that was not written is called kept; the
shell is as it was afterwards.
"""

from __future__ import annotations

import contextlib
import gc
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from gpusession.state import exclusions, notebook, patches, replay, surroundings, trial
from gpusession.state.codecs import handlers
from gpusession.state.components import LARGE_BYTES, Left, Look, Pickled, Survey, why_left
from gpusession.state.manifest import Manifest
from gpusession.state.modules import handmade_modules, local_modules
from gpusession.state.patience import Patience, TookTooLong
from gpusession.state.pickling import (
    Broken,
    Kinds,
    Record,
    StatePickler,
    Stream,
    anchors,
    named_anchors,
    prelude,
)
from gpusession.state.refusals import AGAIN
from gpusession.state.writing import SnapshotWriter

Verdicts = list[dict[str, Any]]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No output of this thread and no garbage collection (a million new objects would set it off often).

    The streams stay the same objects: whoever takes hold of ``sys.stderr`` now, holds the real one.
    What the person's own threads print meanwhile is theirs, and comes through.
    """
    silenced = []
    for stream in {id(one): one for one in (sys.stdout, sys.stderr)}.values():
        with contextlib.suppress(AttributeError, TypeError):
            stream.write = _without_this_thread(stream.write)  # type: ignore[method-assign]
            silenced.append(stream)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for stream in silenced:
            with contextlib.suppress(AttributeError):
                del stream.write


def _without_this_thread(write: Callable[[str], int]) -> Callable[[str], int]:
    ours = threading.get_ident()
    return lambda text: len(text) if threading.get_ident() == ours else write(text)


class Capture:
    """One look at a shell. Make a new one for each save."""

    def __init__(self, shell: Any, patience_seconds: float) -> None:
        self._shell = shell
        self._patience_seconds = patience_seconds
        self.anchored = anchors(shell)
        self._prelude = prelude(list(self.anchored))
        self._local = local_modules(shell)
        self._record = Record()
        self._record.handmade = {id(vars(one)): one for one in handmade_modules(shell.user_ns)}
        kinds = Kinds(handlers(), self._local)
        self._pickled = Pickled(kinds, self.anchored, self._record, Patience(patience_seconds))
        self._variables = notebook.variables(shell)
        self._excluded = exclusions.of(shell)
        self._survey = Survey(self._pickled)
        self._lost: list[tuple[str, Left]] = []
        """What is left beside variables: (title, why)."""
        with self._pickled.patience.watching():
            self._survey.run(chain(self._roots()))
        for key in list(self._survey.left):
            if not key.startswith("var:"):
                self._lose(key, self._survey.left.pop(key))
        self._components = self._survey.components()

    def _roots(self) -> Iterator[tuple[str, Any]]:
        for name, value in self._variables.items():
            if name not in self._excluded:
                yield f"var:{name}", value
        unwanted = {id(self._variables[name]) for name in self._excluded if name in self._variables}
        for number, value in notebook.results(self._shell).items():
            if id(value) not in unwanted:
                yield f"out:{number}", value
        for name, value in notebook.capture_unders(self._shell).items():
            if id(value) not in unwanted:
                yield f"under:{name}", value
        for key, value in patches.capture(self._shell, self._local):
            yield key, value
        for one in surroundings.ALL.values():
            try:
                value = one.capture(self._shell)
            except Exception as error:  # noqa: BLE001 — named in the verdict
                self._lost.append((one.title, Left(f"It cannot be read: {error}", "Set it again.")))
                continue
            if value is not None:
                self._record.keep.append(value)
                yield f"set:{one.name}", value

    def release(self) -> None:
        """Let go of everything that was met, without waiting for the garbage collector."""
        self._record.is_reached = lambda _: False

    # --- what becomes of it

    @property
    def total_bytes(self) -> int:
        return sum(one.estimated_bytes for one in self._components)

    def verdicts(self) -> Verdicts:
        """One for each variable, then what else is left. Raises AssertionError if that is not so."""
        looks = {one.name: one for one in self._survey.looks if one.name not in self._survey.left}
        found = []
        for name, value in self._variables.items():
            key = f"var:{name}"
            if name in self._excluded:
                found.append(exclusions.verdict_on(name, type_name(value)))
                continue
            why = self._survey.left.get(key)
            if (why is None) == (key not in looks):
                raise AssertionError(f"no verdict for {name}")
            if why is not None:
                found.append(self._left(name, value, why))
            elif name not in notebook.SILENT:
                found.append(_kept(name, value, looks[key]))
        for title, why in self._lost:
            found.append(verdict(title, "", None, "left", why.reason, why.hint))
        found.extend(
            verdict(title, kind, None, "left", reason, hint)
            for title, kind, reason, hint in patches.running(self._shell)
        )
        return found

    def _left(self, name: str, value: Any, why: Left) -> dict[str, Any]:
        absent = {key.removeprefix("var:") for key in self._survey.left} | self._excluded
        hint = replay.hint(self._shell, name, why.hint, absent)
        return verdict(name, type_name(value), None, "left", why.reason, hint)

    def write(self, writer: SnapshotWriter, progress: Callable[[int | None], None]) -> None:
        """Write all components; variables that fail now are left after all."""
        self._record.final = True
        progress(self.total_bytes)
        with_code = [one.looks for one in self._components if _rank(one.looks) == 2]
        plain = [one.looks for one in self._components if _rank(one.looks) != 2]
        for looks in plain:
            self._write(writer, *self._stream(looks))
        for looks, stream in self._tried([self._stream(looks) for looks in with_code]):
            self._write(writer, looks, stream)

    def _stream(self, looks: list[Look]) -> tuple[list[Look], Stream | None]:
        if len(looks) == 1 and looks[0].usable:
            return looks, looks[0].stream
        stream, looks = self._extend(looks) or self._dump_together(looks)
        return looks, stream

    def _tried(self, ready: list[tuple[list[Look], Stream | None]]) -> list[tuple[list[Look], Stream | None]]:
        """Load on trial what may pickle and not load; leave what does not."""
        if not trial.possible():
            return ready
        failed = self._try(ready)
        good = [one for index, one in enumerate(ready) if index not in failed]
        for index, why in failed.items():
            looks = ready[index][0]
            alone = [([look], self._dump_together([look])[0]) for look in looks] if len(looks) > 1 else []
            bad = self._try(alone) if alone else {0: why}
            fine = [look for number, look in enumerate(looks) if number not in bad]
            for number, reason in bad.items():
                self._leave(looks[number], Left(reason, AGAIN))
            if fine:
                stream, fine = self._dump_together(fine)
                if stream is not None and (not bad or self._try([(fine, stream)])):
                    for look in fine:
                        self._leave(look, Left(why, AGAIN))
                    continue
                good.append((fine, stream))
        return good

    def _try(self, ready: list[tuple[list[Look], Stream | None]]) -> dict[int, str]:
        small = [
            (index, (self._prelude, stream, len(looks)))
            for index, (looks, stream) in enumerate(ready)
            if stream is not None
            and stream.total_bytes < trial.LIMIT_BYTES
            and not any(look.pickler.must_not_try for look in looks)
        ]
        if not small:
            return {}
        found = trial.failures([one for _, one in small], named_anchors(self._shell), self._patience_seconds)
        return {small[index][0]: why for index, why in found.items()}

    def _write(self, writer: SnapshotWriter, looks: list[Look], stream: Stream | None) -> None:
        if stream is None:
            return
        size = writer.add([one.name for one in looks], stream, _rank(looks), self._chunks(stream))
        if size < len(self._prelude) + 2 * len(looks):
            raise Broken(AssertionError(f"nothing was written for {[one.name for one in looks]}"))
        for look in looks:
            look.stream.chunks = None

    def _chunks(self, stream: Stream) -> Iterator[Any]:
        yield self._prelude
        if stream.chunks is None:
            raise Broken(AssertionError("a stream was not kept"))
        yield from stream.chunks

    def _extend(self, looks: list[Look]) -> tuple[Stream, list[Look]] | None:
        """Pickle the others after a large look that can be written as it is, instead of it once more."""
        lead = max(looks, key=lambda one: one.stream.nbytes)
        others = [one for one in looks if one is not lead]
        if not lead.usable or lead.stream.nbytes < LARGE_BYTES or lead.deep:
            return None
        if any((one.with_nan and not lead.with_nan) or one.deep for one in others):
            return None
        had_nan = lead.stream.has_nan
        try:
            self._pickled.go_on(lead, [one.value for one in others])
        except (Exception, TookTooLong):  # noqa: BLE001 — tried once more one by one
            return None
        if lead.pickler.again or lead.stream.chunks is None or lead.stream.has_nan != had_nan:
            return None
        return lead.stream, [lead, *others]

    def _dump_together(self, looks: list[Look]) -> tuple[Stream | None, list[Look]]:
        """Pickle variables that share objects as one; those that fail by themselves are left first."""
        try:
            return self._dump(looks), looks
        except (Exception, TookTooLong) as error:  # noqa: BLE001 — it becomes a verdict
            if len(looks) == 1:
                self._leave(looks[0], why_left(error))
                return None, []
        good = []
        for look in looks:
            try:
                self._dump([look])
                good.append(look)
            except (Exception, TookTooLong) as error:  # noqa: BLE001 — it becomes a verdict
                self._leave(look, why_left(error))
        if len(good) == len(looks):
            for look in looks:
                self._leave(look, Left("It cannot be saved together with what it shares.", AGAIN))
            return None, []
        return self._dump_together(good) if good else (None, [])

    def _leave(self, look: Look, why: Left) -> None:
        if look.name.startswith("var:"):
            self._survey.left[look.name] = why
        else:
            self._lose(look.name, why)

    def _lose(self, key: str, why: Left) -> None:
        if not key.startswith("under:"):  # a result, which is named as Out[n]
            self._lost.append((title(key), why))

    def _dump(self, looks: list[Look]) -> Stream:
        stream, pickler, _, _ = self._pickled.dump(
            [look.value for look in looks],
            sys.maxsize,
            with_nan=any(look.with_nan for look in looks),
            deep=any(look.deep for look in looks),
        )
        _take_notes(looks, pickler)
        return stream

    def manifest(
        self, snapshot_id: str, meta: dict[str, Any], created_at: str, size: int, verdicts: Verdicts
    ) -> Manifest:
        def text(name: str) -> str:
            value = meta.get(name)
            return value if isinstance(value, str) else ""

        book = meta.get("notebook")
        return Manifest(
            id=snapshot_id,
            kernel=text("kernel"),
            notebook=book if isinstance(book, str) else None,
            name=text("name"),
            created_at=created_at,
            reason=text("reason") or "manual",
            python=platform.python_version(),
            libraries=_libraries(),
            bytes=size,
            verdicts=verdicts,
            execution_count=int(self._shell.execution_count),
        )


def _take_notes(looks: list[Look], pickler: StatePickler) -> None:
    if len(looks) == 1:
        looks[0].notes, looks[0].rebuilt = pickler.notes, pickler.rebuilt


def _rank(looks: list[Look]) -> int:
    if not any(look.by_value for look in looks):
        return 0
    return 1 if all(callable(look.value) for look in looks) else 2


def title(key: str) -> str:
    kind, _, name = key.partition(":")
    if kind == "out":
        return f"Out[{name}]"
    if kind == "set":
        return surroundings.ALL[name].title
    return name


def _kept(name: str, value: Any, look: Look) -> dict[str, Any]:
    what = "rebuilt" if look.rebuilt else "kept"
    return verdict(name, type_name(value), look.bytes, what, " ".join(look.notes) or None, None)


def verdict(
    name: str, kind: str, size: int | None, what: str, reason: str | None, hint: str | None
) -> dict[str, Any]:
    """Return a `gpulease.session.Verdict` as plain data (the kernel does not load pydantic for it)."""
    return {"name": name, "type": kind, "bytes": size, "verdict": what, "reason": reason, "hint": hint}


def type_name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__ if isinstance(kind.__module__, str) else ""
    name = getattr(kind, "__qualname__", kind.__name__)
    return name if module in ("builtins", "__main__", "") else f"{module}.{name}"


def _libraries() -> dict[str, str]:
    found = {}
    for name in (
        "numpy",
        "pandas",
        "sklearn",
        "scipy",
        "matplotlib",
        "torch",
        "tensorflow",
        "cloudpickle",
        "IPython",
    ):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found
