"""A shell in this process, for faults that must be put in at a port."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from gpusession.state.agent import StateAgent
from gpusession.state.disk import Disk
from tests.unit.state.processes import META

START = datetime(2025, 1, 1, tzinfo=UTC)


class Bare:
    """As much of an IPython shell as the agent touches."""

    def __init__(self, **variables: Any) -> None:
        self.user_module = types.ModuleType("__main__")
        self.user_ns: dict[str, Any] = vars(self.user_module)
        self.user_ns_hidden: dict[str, Any] = dict(self.user_ns)
        self.user_ns.update({"In": [""], "Out": {}}, **variables)
        self.execution_count = 1
        self.displayhook = types.SimpleNamespace()
        self.history_manager = types.SimpleNamespace(input_hist_raw=[""])
        self.display_formatter = types.SimpleNamespace(formatters={})
        self.extension_manager = types.SimpleNamespace(loaded=set())
        self.magics_manager = types.SimpleNamespace(registry={}, magics={})
        self.events = types.SimpleNamespace(callbacks={})
        self.compile = types.SimpleNamespace(flags=0, _filename_map={})


@contextmanager
def as_main(shell: Bare) -> Iterator[None]:
    """Let ``__main__`` be the shell's module, as IPython does."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = shell.user_module
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def agent(shell: Bare, disk: Disk | None = None, patience_seconds: float = 20.0) -> StateAgent:
    numbers = count(1)
    minutes = count()
    return StateAgent(
        shell,
        now=lambda: START + timedelta(minutes=next(minutes)),
        make_id=lambda: f"s{next(numbers)}",
        disk=disk,
        patience_seconds=patience_seconds,
    )


def save(made: StateAgent, folder: Path, accept: Any = "all", **meta: Any) -> dict[str, Any]:
    content = {"folder": str(folder), "meta": {**META, **meta}, "accept": accept}
    return made.handle("save", content, lambda done, total: None)


def load(made: StateAgent, folder: Path, names: list[str] | None = None) -> dict[str, Any]:
    return made.handle("load", {"folder": str(folder), "names": names}, lambda done, total: None)
