"""Memory of what stands there for everybody: hub, proxy, broker, launcher; idle, and with 20 servers.

PSS (proportional set size: shared pages are split among their users), so that the sum over processes
means something. Servers are counted apart. Beside it: a stock JupyterHub with the same proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path

import psutil

from tests.bench.plain import StockHub
from tests.bench.table import show
from tests.person import Person
from tests.running import RunningHub

SERVERS, AT_ONCE = 20, 4


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


PARTS = {
    "hub": "jupyterhub -f",
    "broker": "gpuhub.api",
    "keepers": "launcher/keeper.py",
    "launcher": "gpuspawner.launcher",
    "proxy": "configurable-http-proxy",
    "culler": "jupyterhub_idle_culler",
    "gpuhub up": "gpuhub.cli",
}
"""What each command line says. A keeper holds one server or worker."""


def is_server(process: psutil.Process) -> bool:
    line = " ".join(process.cmdline())
    return "singleuser" in line or "ipykernel" in line or "gpusession" in line


def pss_mib(pid: int) -> Counter[str]:
    """What each part of a process tree takes, MiB."""
    found: Counter[str] = Counter()
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[part_of(process)] += process.memory_full_info().pss / 2**20
    return found


def part_of(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    if is_server(process):
        return "servers"
    return next((name for name, mark in PARTS.items() if mark in line), "others")


def hub_side(found: Counter[str]) -> float:
    return found.total() - found["servers"]


async def fill(url: str, token: str) -> None:
    at_once = asyncio.Semaphore(AT_ONCE)

    async def start(name: str) -> None:
        async with at_once, await Person.enrol(url, token, name) as person:
            await person.start_server()

    await asyncio.gather(*(start(f"u{n:02d}") for n in range(SERVERS)))


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        with RunningHub(Path(name) / "data", gpus="sim:2") as hub:
            idle = pss_mib(hub.pid)
            asyncio.run(fill(hub.url, hub.admin_token))
            full = pss_mib(hub.pid)
            ours = (hub_side(idle), hub_side(full), full["servers"] / SERVERS)
            parts = full
            proxy = hub.proxy_command
        with StockHub(Path(name) / "stock", proxy) as stock:
            idle = pss_mib(stock.process.pid)
            asyncio.run(fill(stock.url, stock.token))
            full = pss_mib(stock.process.pid)
            theirs = (hub_side(idle), hub_side(full), full["servers"] / SERVERS)
    for label, values in (("gpuhub", ours), ("stock JupyterHub", theirs)):
        rows.append([label, *(f"{v:.0f} MiB" for v in values)])
    rows.append(["ratio", *(f"{a / b:.2f}×" for a, b in zip(ours, theirs, strict=True))])
    show(["", "hub side, idle", f"hub side, {SERVERS} servers", "one server"], rows)
    shares = (f"{name} {size:.0f}" for name, size in parts.most_common() if name != "servers")
    print(f"gpuhub's side with {SERVERS} servers, MiB: {', '.join(shares)}.")
