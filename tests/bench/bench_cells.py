"""What standing behind the relay (and the link) costs: an empty cell, and a flood of output.

Three kernels take turns in one run: plain Jupyter; ours on the server (relay, and the hub's proxy);
ours on the worker (relay, SSH, and the proxy).
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.plain import PlainJupyter
from tests.bench.table import show
from tests.person import Person, Tab
from tests.running import RunningHub

ROUNDS = 200
LINES = 20_000
FLOOD = f"""
import sys
for n in range({LINES}):
    sys.stdout.write('x' * 120 + chr(10))
    if n % 50 == 0:
        sys.stdout.flush()
"""


async def round_trips(tabs: dict[str, Tab]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in tabs}
    for _ in range(ROUNDS):
        for name, tab in tabs.items():
            started = time.monotonic()
            await tab.run("")
            taken[name].append(time.monotonic() - started)
    return taken


async def flood(tab: Tab) -> tuple[float, float]:
    """MB per second as they arrive, and the share of lines that arrived."""
    started = time.monotonic()
    cell = await tab.run(FLOOD)
    seconds = time.monotonic() - started
    return len(cell.text) / 1e6 / seconds, cell.text.count("\n") / LINES


async def measure() -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        PlainJupyter(Path(name) / "plain") as plain,
        RunningHub(Path(name) / "data", gpus="sim:1") as hub,
    ):
        ann = await Person.enrol(hub.url, hub.admin_token, "bench")
        async with plain.person() as nobody, ann:
            await ann.start_server()
            tabs = {
                "plain Jupyter": await nobody.open("plain.ipynb"),
                "gpuhub, on the server": await ann.open("here.ipynb"),
                "gpuhub, on the worker": await ann.open("there.ipynb"),
            }
            await tabs["gpuhub, on the worker"].flip("worker")
            taken = await round_trips(tabs)
            base = statistics.median(taken["plain Jupyter"])
            rows = []
            for label, tab in tabs.items():
                rates = [await flood(tab) for _ in range(3)]
                rate, whole = statistics.median(r for r, _ in rates), min(w for _, w in rates)
                values = sorted(taken[label])
                rows.append(
                    [
                        label,
                        f"{statistics.median(values) * 1e3:.2f} ms ({statistics.median(values) / base:.2f}×)",
                        f"{values[int(len(values) * 0.95)] * 1e3:.2f} ms",
                        f"{rate:.2f} MB/s",
                        f"{whole:.1%}",
                    ]
                )
            await ann.broker_release()
            await ann.stop_server()
    show(["kernel", "empty cell, median", "95 %", "output", "lines that arrived"], rows)


def main() -> None:
    asyncio.run(measure())
