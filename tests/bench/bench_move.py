"""The pause of a move as a person sees it, beside what the peers offer for the same move.

The pause is the time from the last answered cell before the move to the first answered one after it,
less what the user would not notice (the new kernel is prepared while he works): a cell is submitted
every 20 ms throughout, and the longest gap between two answers is the pause. The rest of the move,
from the switch to its end, is hidden.

Peers' ways, on the same data, in the same run: restart the kernel and run all cells again; dill's
``dump_module`` in the old process and ``load_module`` in a new one (not fsynced, not verified).
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.table import show, spread
from tests.bench.warm import Reserve, warm_files
from tests.person import Person, Tab
from tests.running import RunningHub

ROUNDS = 4
PEERS_ROUNDS = 2
CASES = {
    "1 MB, numpy+pandas": (
        "import numpy as np, pandas as pd\na = np.random.default_rng(1).random(100_000)\n"
        "df = pd.DataFrame({'x': a[:1000]})"
    ),
    "100 MB array": "import numpy as np\na = np.random.default_rng(1).random(12_500_000)",
    "1 GB array": "import numpy as np\na = np.random.default_rng(1).random(125_000_000)",
    "trained forest": (
        "from sklearn.datasets import load_digits\nfrom sklearn.ensemble import RandomForestClassifier\n"
        "X, y = load_digits(return_X_y=True)\nm = RandomForestClassifier(300, random_state=0).fit(X, y)"
    ),
}

ROOM = {name: {"100 MB array": 200_000_000, "1 GB array": 1_200_000_000}.get(name, 0) for name in CASES}
"""What the machine shall have at hand for it, in bytes: see `tests.bench.warm`."""


async def pause_of_move(tab: Tab, target: str, room: Reserve) -> tuple[float, float]:
    """(the longest gap between answers while the kernel moves, the time from asking to the end)."""
    answered: list[float] = []
    enough = asyncio.Event()

    async def knock() -> None:
        while not enough.is_set():
            await tab.run("0")
            answered.append(time.monotonic())
            await asyncio.sleep(0.02)

    knocking = asyncio.create_task(knock())
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await tab.ask(target)
    await when_loading(tab, room)
    status = await tab.settled()
    assert status["placement"] == target, status
    whole = time.monotonic() - began
    await asyncio.sleep(0.3)
    enough.set()
    await knocking
    assert len(answered) > 2, "nothing was answered around the move"
    return max(b - a for a, b in itertools.pairwise(answered)), whole


async def moves(tab: Tab, name: str, folder: Path) -> list[tuple[float, float]]:
    cell = await tab.run(CASES[name])
    assert cell.status == "ok", cell.text
    found = []
    for n in range(ROUNDS):
        warm_files(folder, ROOM[name])
        with Reserve(ROOM[name]) as room:
            found.append(await pause_of_move(tab, "worker" if n % 2 == 0 else "server", room))
    return found


async def when_loading(tab: Tab, room: Reserve) -> None:
    """Hold the memory until the move is about to need it."""
    while True:
        move = (await tab.status())["move"]
        if move is not None and (move["step"] == "loading" or move["ended_at"]):
            room.release()
            return
        await asyncio.sleep(0.02)


def rerun(setup: str) -> float:
    """Restart and run everything again: a new interpreter with the same cells."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import ipykernel.kernelapp\n" + setup], check=True)
    return time.monotonic() - started


def by_dill(setup: str, folder: Path) -> float:
    """dump_module in the old process, load_module in a new one; the new one's start is counted, as there."""
    saved = folder / "session.pkl"
    clock = "print(time.monotonic() - t)"
    dump = f"\nimport dill, time\nt = time.monotonic()\ndill.dump_module({str(saved)!r})\n{clock}"
    out = subprocess.run([sys.executable, "-c", setup + dump], check=True, capture_output=True, text=True)
    started = time.monotonic()
    load = f"import ipykernel.kernelapp, dill\ndill.load_module({str(saved)!r})"
    subprocess.run([sys.executable, "-c", load], check=True, capture_output=True)
    saved.unlink()
    return float(out.stdout) + time.monotonic() - started


async def measure() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder, RunningHub(Path(folder) / "data", gpus="sim:1") as hub:
        async with await Person.enrol(hub.url, hub.admin_token, "bench") as ann:
            await ann.start_server()
            for name, setup in CASES.items():
                tab = await ann.open("bench.ipynb")
                moved = await moves(tab, name, Path(folder))
                ours, whole = [pause for pause, _ in moved], [seconds for _, seconds in moved]
                hidden = statistics.median(1 - pause / seconds for pause, seconds in moved)
                again, dill = [], []
                for _ in range(PEERS_ROUNDS):
                    Reserve(ROOM[name]).release()
                    again.append(rerun(setup))
                    Reserve(ROOM[name]).release()
                    dill.append(by_dill(setup, Path(folder)))
                mine = statistics.median(ours)
                rows.append(
                    [
                        name,
                        spread(ours),
                        f"{spread(whole)}, {hidden:.0%} hidden",
                        f"{spread(again)} ({statistics.median(again) / mine:.1f}×)",
                        f"{spread(dill)} ({statistics.median(dill) / mine:.1f}×)",
                    ]
                )
                await ann.api("DELETE", f"{ann.server_url}api/sessions/{tab.session}")
            await ann.broker_release()
            await ann.stop_server()
    show(
        [
            "variables",
            "pause of a gpuhub move",
            "whole move",
            "restart and re-run all",
            "dill dump_module/load_module",
        ],
        rows,
    )


def main() -> None:
    asyncio.run(measure())
