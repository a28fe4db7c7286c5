"""Notebooks that ordinary people would write, cut at every cell: saved in one process, finished in another.

Each file of ``tests/notebooks/corpus`` is a notebook in percent form. `Player` plays its cells in a
process of its own, in a folder of its own. A cut is *right* when what follows prints what it prints
in a run that was never cut, *told* when it differs only because of variables that the verdict had
named as left, and *wrong* otherwise.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.unit.state.processes import META, Shell

FOLDER = Path(__file__).parent / "notebooks" / "corpus"


def cells_of(path: Path) -> list[str]:
    """Return the cells of a notebook in percent form."""
    return [part.strip("\n") for part in re.split(r"^# %%\n", path.read_text(), flags=re.M)[1:]]


@dataclass
class Printed:
    """What one cell left on the screen."""

    text: str
    error: str | None = None


@dataclass
class Cut:
    """One notebook, cut before ``at``."""

    notebook: str
    at: int
    outcome: str
    details: list[str] = field(default_factory=list)


class Player(Shell):
    """A shell that says what each cell left on the screen."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="gpuhub-corpus-")
        super().__init__(Path(self._home.name))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._home.cleanup()

    def play(self, code: str) -> Printed:
        answer = self.ask(run=code)
        shown = answer["error"] or re.sub(r"Out\[\d+\]:", "Out:", answer["text"])
        return Printed(shown, answer["error"])


def play(cells: list[str]) -> list[Printed]:
    """Run a notebook that is never cut."""
    with Player() as player:
        return [player.play(cell) for cell in cells]


def cut(notebook: str, cells: list[str], expected: list[Printed], at: int, folder: Path) -> Cut:
    """Run ``cells[:at]``, save, load elsewhere, run the rest; judge what it prints."""
    with Player() as first, Player() as second:
        for cell in cells[:at]:
            first.play(cell)
        saved = first.handle("save", folder=str(folder), meta=META, accept="all")
        if "code" in saved:
            return Cut(notebook, at, "wrong", [f"save: {saved}"])
        loaded = second.handle("load", folder=str(folder / saved["snapshot"]), names=None)
        if "code" in loaded:
            return Cut(notebook, at, "wrong", [f"load: {loaded}"])
        verdicts = {**{v["name"]: v for v in saved["verdicts"]}, **{v["name"]: v for v in loaded["verdicts"]}}
        left = {name for name, verdict in verdicts.items() if verdict["verdict"] == "left"}
        told, details = False, []
        for index, cell in enumerate(cells[at:], at):
            printed = second.play(cell)
            if printed == expected[index]:
                continue
            missing = re.search(r"name '(\w+)' is not defined", printed.text)
            told = told or bool(missing and missing[1] in left)
            details.append(
                f"cell {index}: {printed.text!r} {printed.error} instead of {expected[index].text!r}"
            )
            if not told:
                return Cut(notebook, at, "wrong", [*details, f"left: {sorted(left)}"])
        return Cut(notebook, at, "told" if told else "right", details)
