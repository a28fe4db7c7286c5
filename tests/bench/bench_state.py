"""Saving and loading a session's variables, beside what the disk can do, np.save and cloudpickle.

Every number comes from a process of its own (`tests.bench.state_child`); the ways take turns, so that
a busy minute of the machine strikes all of them. Everything is fsynced. "From disk" is read after the
files were dropped from the page cache; "from cache" is the same right after, as after a move. The
memory that it takes is there before (see `tests.bench.warm`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.bench.table import show, spread

ROUNDS = 3
ARRAYS = ("raw", "numpy", "cloudpickle", "agent")
PICKLED = ("cloudpickle", "agent")
NAMES = {
    "raw": "write+fsync, read",
    "numpy": "np.save, np.load",
    "cloudpickle": "cloudpickle",
    "agent": "gpuhub",
}
MILLION = {"records": "1e6 dictionaries in a list", "instances": "1e6 instances of a notebook's class"}
COUNTS = (100, 1_000, 10_000)
LIMIT_SECONDS = 300

Numbers = dict[str, dict[str, list[float]]]


def measure(case: str, ways: tuple[str, ...], rounds: int = ROUNDS) -> Numbers:
    """{way: {what: values}}; the ways take turns."""
    taken: Numbers = {way: defaultdict(list) for way in ways}
    for _ in range(rounds):
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                for what in ("save", "load"):
                    for key, value in child(case, f"{what} {way}", Path(folder)).items():
                        taken[way][key].append(value)
    return taken


def child(case: str, way: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.state_child", case, way, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise AssertionError(f"{case}, {way}:\n{done.stderr}")
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


def beside(values: list[float], base: list[float], scale: float = 1.0, unit: str = "s") -> str:
    """Median and range; and the median of the ratios round by round: a slow minute strikes both."""
    ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
    return f"{spread([scale * value for value in values], unit)} {ratio:.2f}×"


def arrays() -> list[list[str]]:
    """Returns the row of the second save."""
    taken = measure("arrays", ARRAYS)
    raw = taken["raw"]
    rows = []
    for way in ARRAYS:
        numbers = taken[way]
        size = statistics.median(numbers["bytes"])
        rows.append(
            [
                NAMES[way],
                beside(numbers["save"], raw["save"]),
                beside(numbers["cpu"], raw["cpu"]),
                f"{max(numbers['grew']) / size:.1%}",
                *(beside(numbers[what], raw[what]) for what in ("from disk", "from cache")),
            ]
        )
    show(["1 GB in 8 arrays", "save", "of it CPU", "extra memory", "load from disk", "load from cache"], rows)
    return [second("1 GB in 8 arrays", taken["agent"])]


def second(label: str, numbers: dict[str, list[float]]) -> list[str]:
    share = statistics.median(a / b for a, b in zip(numbers["second"], numbers["save"], strict=True))
    written = statistics.median(numbers["second_bytes"]) / statistics.median(numbers["bytes"])
    return [
        label,
        spread(numbers["save"]),
        spread(numbers["second"]),
        f"{share:.1%}",
        f"{written:.1%}",
        beside(numbers["check"], numbers["save"]),
    ]


def million() -> list[list[str]]:
    rows, seconds = [], []
    for case, label in MILLION.items():
        taken = measure(case, PICKLED)
        base = taken["cloudpickle"]
        for way in PICKLED:
            numbers = taken[way]
            rows.append(
                [
                    f"{label}: {NAMES[way]}",
                    *(beside(numbers[what], base[what]) for what in ("save", "cpu", "from cache")),
                    f"{statistics.median(numbers['bytes']) / 1e6:.0f} MB",
                    f"{max(numbers['grew']) / 1e6:.0f} MB",
                ]
            )
        seconds.append(second(label, taken["agent"]))
    show(["1e6 small objects", "save", "of it CPU", "load", "on disk", "extra memory, save"], rows)
    return seconds


def variables() -> None:
    rows = []
    for count in COUNTS:
        taken = measure(f"{count} variables", PICKLED, rounds=2)
        numbers, base = taken["agent"], taken["cloudpickle"]
        rows.append(
            [
                f"{count:,}",
                *(beside(numbers[what], base[what], 1e6 / count, "us") for what in ("save", "from cache")),
                spread([1e6 * value / count for value in numbers["check"]], "us"),
            ]
        )
    show(["variables", "save, each", "load, each", "dry run, each"], rows)
    print("Ratios: beside cloudpickle, one variable after another into one file.")


def main() -> None:
    unchanged = arrays()
    print()
    unchanged += million()
    print()
    header = ["unchanged session", "first save", "second save", "second/first", "written again", "dry run"]
    show(header, unchanged)
    print()
    variables()
