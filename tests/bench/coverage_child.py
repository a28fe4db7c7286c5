"""Carries every class of one library by every tool, and says what came back: one JSON line an outcome.

``python -m tests.bench.coverage_child LIBRARY FOLDER``. Exists so that a library is imported once: for each
class and tool one forked process makes and saves the object, and a second one, forked from the same clean
parent, loads it and looks.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import dill
from IPython.core.interactiveshell import InteractiveShell
from IPython.external.pickleshare import PickleShareDB
from traitlets.config import Config

from gpusession.state.agent import StateAgent
from tests.frameworks.classes import FRAMEWORKS
from tests.unit.state.classes import ORDINARY, Kind

META = {"kernel": "k1", "notebook": "bench.ipynb", "name": "python3", "reason": "manual"}
VALUES = (int, float, str, range, slice)
"""Nobody is promised that these stay one object."""
SECONDS = 60


def main() -> None:
    library, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    os.chdir(folder)
    own = Config({"HistoryManager": {"hist_file": ":memory:"}})
    shell = InteractiveShell.instance(colors="NoColor", history_length=0, config=own)
    answers = os.fdopen(os.dup(1), "w")
    mine = [kind for kind in (*ORDINARY, *FRAMEWORKS) if kind.library == library]
    imports = {
        line for kind in mine for line in kind.made.splitlines() if line.startswith(("import ", "from "))
    }
    for line in sorted(imports):
        with contextlib.suppress(Exception):
            exec(line, {})
    for number, kind in enumerate(mine):
        for tool in TOOLS:
            place = folder / f"{number}-{tool}"
            place.mkdir()
            outcome = carried(shell, kind, tool, place)
            answers.write(json.dumps([kind.name, tool, outcome]) + "\n")
            answers.flush()


def carried(shell: Any, kind: Kind, tool: str, place: Path) -> str:
    save, load = TOOLS[tool]
    said = apart(lambda: saved(shell, kind, save, place))
    if said == "not made":
        return said
    return apart(lambda: looked(shell, kind, load, place))


def apart(work: Callable[[], str]) -> str:
    """Run in a forked process; what it says, or "refused" if it dies."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            import signal

            signal.alarm(SECONDS)
            os.write(outlet, work().encode())
        finally:
            os._exit(0)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as said:
        text = said.read().decode()
    os.waitpid(child, 0)
    return text or "refused"


def saved(shell: Any, kind: Kind, save: Callable[[Any, Path], None], place: Path) -> str:
    result = shell.run_cell(kind.made + "\nalias_ = [it]")
    if result.error_in_exec or result.error_before_exec:
        return "not made"
    with contextlib.redirect_stdout(io.StringIO()):
        save(shell, place)
    return "saved"


def looked(shell: Any, kind: Kind, load: Callable[[Any, Path], None], place: Path) -> str:
    try:
        load(shell, place)
    except Exception:  # it says that it cannot: that is a refusal
        return "refused"
    space = shell.user_ns
    if "it" not in space:
        return "refused"
    result = shell.run_cell(f"equal_ = bool({kind.true})")
    if result.error_in_exec or result.error_before_exec or not space["equal_"]:
        return "wrong"
    same = "alias_" in space and space["alias_"][0] is space["it"]
    return "whole" if same or type(space["it"]) in VALUES else "copy"


# --- the tools: how each saves all variables, and loads them


def save_gpuhub(shell: Any, place: Path) -> None:
    agent(shell).handle("save", {"folder": str(place), "meta": META, "accept": "all"}, lambda *_: None)


def load_gpuhub(shell: Any, place: Path) -> None:
    snapshot = next(path for path in place.iterdir() if path.is_dir())
    agent(shell).handle("load", {"folder": str(snapshot), "names": None}, lambda *_: None)


def agent(shell: Any) -> StateAgent:
    return StateAgent(shell, now=lambda: datetime.now(UTC), make_id=lambda: uuid.uuid4().hex)


def save_dill(shell: Any, place: Path) -> None:
    sys.modules["__main__"] = shell.user_module
    for name in ("In", "Out", "exit", "quit", "get_ipython", "open"):
        shell.user_ns.pop(name, None)
    dill.dump_module(place / "all.pickle", module=shell.user_module)


def load_dill(shell: Any, place: Path) -> None:
    sys.modules["__main__"] = shell.user_module
    dill.load_module(place / "all.pickle", module=shell.user_module)


def save_cloudpickle(shell: Any, place: Path) -> None:
    for name, value in list(shell.user_ns.items()):
        if not name.startswith("_") and name not in ("In", "Out", "exit", "quit", "get_ipython", "open"):
            with contextlib.suppress(Exception):
                data = cloudpickle.dumps(value)
                (place / name).write_bytes(data)


def load_cloudpickle(shell: Any, place: Path) -> None:
    for path in place.iterdir():
        with contextlib.suppress(Exception):
            shell.user_ns[path.name] = pickle.loads(path.read_bytes())


def save_store(shell: Any, place: Path) -> None:
    stored(shell, place)
    for name in list(shell.user_ns):
        if not name.startswith("_") and name not in ("In", "Out", "exit", "quit", "get_ipython", "open"):
            with contextlib.suppress(Exception):
                shell.run_line_magic("store", name)


def load_store(shell: Any, place: Path) -> None:
    stored(shell, place)
    shell.run_line_magic("store", "-r")


def stored(shell: Any, place: Path) -> None:
    shell.db = PickleShareDB(str(place / "db"))
    shell.run_line_magic("load_ext", "storemagic")


TOOLS: dict[str, tuple[Callable[[Any, Path], None], Callable[[Any, Path], None]]] = {
    "gpuhub": (save_gpuhub, load_gpuhub),
    "dill": (save_dill, load_dill),
    "cloudpickle": (save_cloudpickle, load_cloudpickle),
    "%store": (save_store, load_store),
}

if __name__ == "__main__":
    main()
