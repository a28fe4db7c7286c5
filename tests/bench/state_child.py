"""One measurement of saving or loading, in a process of its own: arguments in, one JSON line out.

Exists because memory and caches of one way must not help or hurt the next: `bench_state` starts a
new process for every number. ``python -m tests.bench.state_child CASE WAY FOLDER``.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from IPython.core.interactiveshell import InteractiveShell

from gpusession.state.agent import StateAgent
from tests.bench.warm import warm_files, warm_heap

PIECE = 4 << 20
META = {"kernel": "k1", "notebook": "bench.ipynb", "name": "python3", "reason": "manual"}
ARRAYS = """
import numpy as np
rng = np.random.default_rng(1)
{}
""".format("\n".join(f"a{n} = rng.random(15_625_000)" for n in range(8)))
CASES = {
    "arrays": ARRAYS,
    "records": "rows = [{'id': n, 'name': f'name {n}', 'half': n / 2} for n in range(1_000_000)]",
    "instances": (
        "class Point:\n    def __init__(self, n):\n        self.x, self.y = n, n / 2\n"
        "points = [Point(n) for n in range(1_000_000)]"
    ),
    **{
        f"{count} variables": f"for _n in range({count}): globals()[f'v{{_n}}'] = {{'n': _n, 'l': [_n, 1.5]}}"
        for count in (100, 1_000, 10_000)
    },
}
"""Cells that make what is saved. The eight arrays are 1 GB together."""


def room(case: str) -> int:
    """More than the case writes, in bytes."""
    return 1_100_000_000 if case == "arrays" else 150_000_000


def main() -> None:
    case, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    shell = InteractiveShell.instance(colors="NoColor", history_length=0)
    answers = os.dup(1)
    measured = WAYS[way](shell, case, folder)
    os.write(answers, json.dumps(measured).encode() + b"\n")


def made(shell: Any, case: str) -> dict[str, Any]:
    """Run the case's cell; return its variables."""
    before = set(shell.user_ns)
    result = shell.run_cell(CASES[case], store_history=True)
    result.raise_error()
    return {
        name: value
        for name, value in shell.user_ns.items()
        if name not in before and not name.startswith("_") and name not in ("np", "rng")
    }


def agent(shell: Any) -> StateAgent:
    return StateAgent(shell, now=lambda: datetime.now(UTC), make_id=lambda: uuid.uuid4().hex)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def with_peak(work: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Seconds; and of the process meanwhile: its CPU seconds, by how many bytes it grew at most."""
    Path("/proc/self/clear_refs").write_text("5")  # from here on, the peak is what is resident now
    before, began = status("VmRSS"), time.process_time()
    seconds = timed(work)
    return seconds, {"cpu": time.process_time() - began, "grew": status("VmHWM") - before}


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def settle(folder: Path, *, cold: bool = False) -> None:
    """Let what was written reach the disk, and leave the page cache when the disk shall be read."""
    os.sync()
    for path in folder.rglob("*") if cold else ():
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def tree_bytes(folder: Path) -> int:
    """What is on the disk; a file with two names counts once."""
    files = {
        status.st_ino: status for path in folder.rglob("*") if (status := path.stat()) and path.is_file()
    }
    return sum(one.st_size for one in files.values())


# --- saving


def save_agent(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    """The agent's save, once more with nothing changed, and its dry run."""
    made(shell, case)
    keeper = agent(shell)
    content = {"folder": str(folder), "meta": META, "accept": "none"}
    answers = []

    def save() -> None:
        answers.append(keeper.handle("save", content, lambda done, total: None))

    settle(folder)
    warm_files(folder, room(case))
    first, cost = with_peak(save)
    first_bytes = tree_bytes(folder)
    settle(folder)
    warm_files(folder, room(case))
    second = timed(save)
    second_bytes = tree_bytes(folder) - first_bytes
    check = timed(lambda: keeper.handle("check", {}, lambda done, total: None))
    return {
        "save": first,
        "second": second,
        "check": check,
        **cost,
        "bytes": first_bytes,
        "second_bytes": second_bytes,
    }


def save_raw(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    """The same bytes by write and fsync: what the disk can do."""
    views = [memoryview(value).cast("B") for value in made(shell, case).values()]

    def work() -> None:
        file = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT, 0o600)
        for view in views:
            for begin in range(0, len(view), PIECE):
                os.write(file, view[begin : begin + PIECE])
        os.fsync(file)
        os.close(file)

    return saved(case, folder, work)


def save_numpy(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    arrays = made(shell, case)

    def work() -> None:
        for name, value in arrays.items():
            with open(folder / f"{name}.npy", "wb") as file:
                np.save(file, value)
                file.flush()
                os.fsync(file.fileno())

    return saved(case, folder, work)


def save_cloudpickle(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    """One variable after another into one file."""
    variables = made(shell, case)

    def work() -> None:
        file = os.open(folder / "all.pickle", os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(file, "wb") as stream:
            for name, value in variables.items():
                cloudpickle.dump((name, value), stream, protocol=5)
            stream.flush()
            os.fsync(stream.fileno())

    return saved(case, folder, work)


def saved(case: str, folder: Path, work: Callable[[], None]) -> dict[str, Any]:
    settle(folder)
    warm_files(folder, room(case))
    seconds, cost = with_peak(work)
    return {"save": seconds, **cost, "bytes": tree_bytes(folder)}


# --- loading: once from the disk, once from the page cache (as after a move on the same machine)


def load_agent(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    keeper = agent(shell)
    snapshot = min((path for path in folder.iterdir() if path.is_dir()), key=lambda one: one.stat().st_mtime)

    def work() -> None:
        answer = keeper.handle("load", {"folder": str(snapshot), "names": None}, lambda done, total: None)
        assert all(one["verdict"] == "kept" for one in answer["verdicts"]), answer["verdicts"]

    return loaded(shell, case, folder, work)


def load_raw(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    memory = bytearray(tree_bytes(folder))
    memory[:: 1 << 12] = b"x" * len(memory[:: 1 << 12])  # every page is there before the clock runs

    def work() -> None:
        file = os.open(folder / "raw", os.O_RDONLY)
        view = memoryview(memory)
        while view:
            view = view[os.readv(file, [view[:PIECE]]) :]
        os.close(file)

    return loaded(shell, case, folder, work)


def load_numpy(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    def work() -> None:
        shell.user_ns.update({path.stem: np.load(path) for path in folder.glob("*.npy")})

    return loaded(shell, case, folder, work)


def load_cloudpickle(shell: Any, case: str, folder: Path) -> dict[str, Any]:
    def work() -> None:
        with open(folder / "all.pickle", "rb") as stream:
            while True:
                try:
                    name, value = pickle.load(stream)
                except EOFError:
                    return
                shell.user_ns[name] = value

    return loaded(shell, case, folder, work)


def loaded(shell: Any, case: str, folder: Path, work: Callable[[], None]) -> dict[str, Any]:
    """What was loaded is dropped before the second time: it shall find as much room as the first."""
    before = set(shell.user_ns)
    warm_heap(room(case))
    settle(folder, cold=True)
    from_disk = timed(work)
    for name in set(shell.user_ns) - before:
        del shell.user_ns[name]
    return {"from disk": from_disk, "from cache": timed(work)}


WAYS = {
    "save agent": save_agent,
    "save raw": save_raw,
    "save numpy": save_numpy,
    "save cloudpickle": save_cloudpickle,
    "load agent": load_agent,
    "load raw": load_raw,
    "load numpy": load_numpy,
    "load cloudpickle": load_cloudpickle,
}

if __name__ == "__main__":
    main()
