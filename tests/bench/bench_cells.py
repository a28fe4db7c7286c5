"""What standing behind the relay (and the link) costs: an empty cell, and a flood of output.

Kernels take turns in one run: plain Jupyter; ours on the server (relay); ours on the worker (relay and
SSH). All three are asked at the server itself, and acknowledge each frame as soon as it was read: plain
Jupyter leaves Nagle's algorithm on for its websockets, and a receiver that delays acknowledgements
(40 ms) would hide everything else. The last row is such a receiver, through the hub's proxy.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.bench.plain import PlainJupyter
from tests.bench.table import show, spread
from tests.person import Person, Tab
from tests.running import RunningHub

ROUNDS, FLOODS = 200, 3
PLAIN, WORKER = "plain Jupyter", "gpuhub, on the worker"
PROXIED = "gpuhub, on the server, through the proxy"
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


def acknowledge_at_once(tab: Tab) -> Tab:
    """Send the acknowledgement of each frame when it has been read."""
    websocket = tab._ws
    receive, connection = websocket.receive, websocket.get_extra_info("socket")

    async def receive_and_acknowledge(timeout: float | None = None) -> Any:
        message = await receive(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return message

    websocket.receive = receive_and_acknowledge  # type: ignore[method-assign]
    return tab


def at_the_server(hub: RunningHub, ann: Person) -> str:
    """The address of the person's server behind the proxy."""
    for process in psutil.Process(hub.pid).children(recursive=True):
        if "jupyterhub.singleuser" in process.cmdline():
            behind = urlsplit(process.environ()["JUPYTERHUB_SERVICE_URL"])
            return f"http://{behind.netloc}{urlsplit(ann.server_url).path}"
    raise AssertionError("no server runs")


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
            through_proxy, ann.server_url = ann.server_url, at_the_server(hub, ann)
            tabs = {
                PLAIN: acknowledge_at_once(await nobody.open("plain.ipynb")),
                "gpuhub, on the server": acknowledge_at_once(await ann.open("here.ipynb")),
                WORKER: acknowledge_at_once(await ann.open("there.ipynb")),
            }
            ann.server_url = through_proxy
            tabs[PROXIED] = await ann.open("proxied.ipynb")
            await tabs[WORKER].flip("worker")
            taken = await round_trips(tabs)
            base = 1e3 * statistics.median(taken[PLAIN])
            floods: dict[str, list[tuple[float, float]]] = {label: [] for label in tabs}
            for _ in range(FLOODS):
                for label, tab in tabs.items():
                    floods[label].append(await flood(tab))
            usual = statistics.median(rate for rate, _ in floods[PLAIN])
            rows = []
            for label, found in floods.items():
                rates, whole = [rate for rate, _ in found], min(share for _, share in found)
                values = sorted(1e3 * seconds for seconds in taken[label])
                median = statistics.median(values)
                rows.append(
                    [
                        label,
                        f"{median:.2f} ms ({values[ROUNDS // 20]:.2f}–{values[ROUNDS * 19 // 20]:.2f})",
                        f"{median - base:+.2f} ms",
                        f"{median / base:.2f}×",
                        f"{spread(rates, 'MB/s')} {statistics.median(rates) / usual:.2f}×",
                        f"{whole:.1%}",
                    ]
                )
            await ann.broker_release()
            await ann.stop_server()
    show(
        ["kernel", "empty cell (5–95 %)", "more", "ratio", "output", "lines that arrived"],
        rows,
    )


def main() -> None:
    asyncio.run(measure())
