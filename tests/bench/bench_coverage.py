"""Which classes of objects come back, and as what: beside dill, cloudpickle and ``%store``.

Each class is saved and loaded by each tool in processes of their own (`tests.bench.coverage_child`). *Whole*:
equal, and an alias is still the same object. *Apart*: equal, but the alias became a copy without a word.
*Refused*: it is not there, and the tool said so. *Wrong*: it is there as something else, and nobody said so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tests.frameworks.classes import FRAMEWORKS
from tests.unit.state.classes import ORDINARY

LARGE = Path(".cache/frameworks/bin/python")
TOOLS = ("gpuhub", "dill", "cloudpickle", "%store")
OUTCOMES = ("whole", "copy", "refused", "wrong")
LIMIT_SECONDS = 1200


def main() -> None:
    wanted = [(library, sys.executable) for library in dict.fromkeys(kind.library for kind in ORDINARY)]
    large = list(dict.fromkeys(kind.library for kind in FRAMEWORKS))
    if LARGE.exists():
        wanted += [(library, str(LARGE)) for library in large]
    else:
        print(f"Not measured, since `make lane-frameworks` has not run here: {', '.join(large)}.")
    total: dict[str, Counter[str]] = defaultdict(Counter)
    notable = []
    print(
        "library: classes;", "; ".join(TOOLS), "— each whole / apart (the alias is a copy) / refused / wrong"
    )
    for library, python in wanted:
        outcomes = of_library(library, python)
        counted = {tool: Counter(found[tool] for found in outcomes.values()) for tool in TOOLS}
        for tool in TOOLS:
            total[tool] += counted[tool]
        told(library, counted)
        notable += [
            (library, name, found["gpuhub"]) for name, found in outcomes.items() if found["gpuhub"] != "whole"
        ]
    told("all", total)
    print(
        "Not whole with gpuhub: " + ", ".join(f"{lib} {name} ({what})" for lib, name, what in notable) + "."
    )


def told(library: str, counted: dict[str, Counter[str]]) -> None:
    """At once: the whole takes minutes."""
    cells = (spelled(counted[tool]).ljust(18) for tool in TOOLS)
    print(f"{library}:".ljust(18), str(counted["gpuhub"].total()).ljust(5), *cells, flush=True)


def spelled(counted: Counter[str]) -> str:
    odd = {what: count for what, count in counted.items() if what not in OUTCOMES}
    return " / ".join(str(counted[what]) for what in OUTCOMES) + (f" {odd}" if odd else "")


def of_library(library: str, python: str) -> dict[str, dict[str, str]]:
    """{class: {tool: outcome}}."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "tests.bench.coverage_child", library, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        if done.returncode:
            raise AssertionError(f"{library}:\n{done.stderr}")
        for line in done.stdout.splitlines():
            name, tool, outcome = json.loads(line)
            found[name][tool] = outcome
    return found
