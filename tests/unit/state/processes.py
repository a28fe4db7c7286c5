"""A process with an IPython shell and the agent in it, driven line by line.

What is saved in one is loaded in another: nothing that a test finds can have survived by accident.
Run as a program it is the other half: JSON lines in, JSON lines out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

META = {"kernel": "k1", "notebook": "a.ipynb", "name": "python3", "reason": "move"}


class Shell:
    """The near half. ``path``: where modules are looked for first."""

    def __init__(self, folder: Path, *options: str, path: Path | None = None) -> None:
        self.folder = folder
        self._options = options
        self._env = {**os.environ, "PYTHONPATH": str(path)} if path else None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self._env,
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

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process ended at {order}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, *cells: str) -> str:
        """Run cells; return what they printed. A cell that fails is a failure of the test."""
        printed = ""
        for cell in cells:
            answer = self.ask(run=cell)
            assert not answer["error"], answer["error"]
            printed += answer["text"]
        return printed

    def value(self, expression: str) -> str:
        return self.run(f"print({expression})").strip()

    def handle(self, op: str, **content: Any) -> dict[str, Any]:
        """Ask the agent; its errors come back as ``{"code", "message", "hint", "details"}``."""
        return self.ask(handle=op, content=content)

    def save(self, folder: Path, accept: Any = "none") -> dict[str, Any]:
        saved = self.handle("save", folder=str(folder), meta=META, accept=accept)
        assert "code" not in saved, saved
        return saved

    def load(self, folder: Path, names: list[str] | None = None) -> dict[str, dict[str, Any]]:
        loaded = self.handle("load", folder=str(folder), names=names)
        assert "code" not in loaded, loaded
        return {one["name"]: one for one in loaded["verdicts"]}


def verdicts(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in answer["verdicts"]}


def left(answer: dict[str, Any]) -> dict[str, str]:
    """Return what is left, with its reasons."""
    return {one["name"]: one["reason"] for one in answer["verdicts"] if one["verdict"] == "left"}


def _serve() -> None:
    import uuid
    from datetime import UTC, datetime

    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from gpulease.errors import GpuhubError
    from gpusession.state import replay_ledger
    from gpusession.state.agent import StateAgent
    from gpusession.state.magic import GpuStateMagics

    # Two shells at a time would disturb each other's history in one file, and say so in a cell's output.
    own = Config({"HistoryManager": {"hist_file": ":memory:"}})
    shell = InteractiveShell.instance(colors="NoColor", history_length=0, config=own)
    replay_ledger.of(shell).follow(shell)
    answers = sys.stdout
    agent = StateAgent(
        shell,
        now=lambda: datetime.now(UTC),
        make_id=lambda: uuid.uuid4().hex,
        patience_seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 20.0,
    )
    meta = {**META, "name": "python3"}
    shell.register_magics(GpuStateMagics(shell, agent, Path("../snapshots").resolve(), lambda: meta))
    progress: list[tuple[int, int | None]] = []

    def do(order: dict[str, Any]) -> dict[str, Any]:
        text = io.StringIO()
        if "run" in order:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                result = shell.run_cell(order["run"], store_history=True)
            error = result.error_before_exec or result.error_in_exec
            return {"text": text.getvalue(), "error": f"{type(error).__name__}: {error}" if error else None}
        try:
            before = {name: id(value) for name, value in shell.user_ns.items()}, shell.execution_count
            answer = agent.handle(
                order["handle"], order["content"], lambda done, total: progress.append((done, total))
            )
            if order["handle"] not in ("load", "rebuild"):
                after = {name: id(value) for name, value in shell.user_ns.items()}, shell.execution_count
                assert after == before
            return answer
        except GpuhubError as refusal:
            return refusal.as_dict()

    for line in sys.stdin:
        answers.write(json.dumps(do(json.loads(line)), default=str) + "\n")
        answers.flush()
    # Not by Python's own end: it waits for what the cells left running, and takes libraries down for seconds.
    os._exit(0)


if __name__ == "__main__":
    _serve()
