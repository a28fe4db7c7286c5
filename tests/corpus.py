"""Notebooks that ordinary people would write, cut at every cell: saved in one process, finished in another.

Each file of ``tests/notebooks/corpus`` is a notebook in percent form. `Player` plays cells in an
IPython shell of a process of its own, and saves and loads through the agent, as a kernel does. A
cut is *right* when what follows prints what it prints in a run that was never cut, *told* when it
differs only because of variables that the verdict had named as left, and *wrong* otherwise.

Run as a program it is the player's other half: JSON lines in, JSON lines out.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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


class Player:
    """One process with an IPython shell."""

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="gpuhub-corpus-")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._home.name,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._home.cleanup()

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the player ended at {order}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, code: str) -> Printed:
        return Printed(**self.ask(op="run", code=code))


def play(cells: list[str]) -> list[Printed]:
    """Run a notebook that is never cut."""
    with Player() as player:
        return [player.run(cell) for cell in cells]


def cut(notebook: str, cells: list[str], expected: list[Printed], at: int, folder: Path) -> Cut:
    """Run ``cells[:at]``, save, load elsewhere, run the rest; judge what it prints."""
    with Player() as first, Player() as second:
        for cell in cells[:at]:
            first.run(cell)
        saved = first.ask(op="save", folder=str(folder))
        if "refused" in saved:
            return Cut(notebook, at, "wrong", [f"save: {saved['refused']}"])
        loaded = second.ask(op="load", folder=str(folder / saved["snapshot"]))
        if "refused" in loaded:
            return Cut(notebook, at, "wrong", [f"load: {loaded['refused']}"])
        verdicts = {**{v["name"]: v for v in saved["verdicts"]}, **{v["name"]: v for v in loaded["verdicts"]}}
        left = {name for name, verdict in verdicts.items() if verdict["verdict"] == "left"}
        told, details = False, []
        for index, cell in enumerate(cells[at:], at):
            printed = second.run(cell)
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


def _serve() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    from gpulease.errors import GpuhubError

    shell = InteractiveShell.instance(colors="NoColor", history_length=0)
    answers = sys.stdout

    def do(order: dict[str, Any]) -> dict[str, Any]:
        if order["op"] == "run":
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                result = shell.run_cell(order["code"], store_history=True)
            error = result.error_before_exec or result.error_in_exec
            shown = (
                f"{type(error).__name__}: {error}"
                if error
                else re.sub(r"Out\[\d+\]:", "Out:", text.getvalue())
            )
            return {"text": shown, "error": type(error).__name__ if error else None}
        from gpusession.state.agent import StateAgent

        agent = StateAgent(shell, now=lambda: datetime.now(UTC), make_id=lambda: uuid.uuid4().hex[:12])
        try:
            if order["op"] == "save":
                meta = {"kernel": "k", "notebook": "n.ipynb", "name": "python3", "reason": "move"}
                return agent.handle(
                    "save", {"folder": order["folder"], "meta": meta, "accept": "all"}, _quiet
                )
            return agent.handle("load", {"folder": order["folder"], "names": None}, _quiet)
        except GpuhubError as refusal:
            return {"refused": f"{refusal.code}: {refusal.message} {refusal.details}"}

    for line in sys.stdin:
        answers.write(json.dumps(do(json.loads(line)), default=str) + "\n")
        answers.flush()


def _quiet(done: int, total: int | None) -> None:
    """Progress is of no interest here."""


if __name__ == "__main__":
    _serve()
