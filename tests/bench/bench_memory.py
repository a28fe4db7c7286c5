"""Memory of what stands there for everybody: hub, proxy, broker, launcher; idle, and with 20 servers.

PSS (proportional set size: shared pages are split among their users), so that the sum over processes
means something. Servers are counted apart. Beside it: a stock JupyterHub with the same proxy.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import psutil

from tests.bench.plain import StockHub
from tests.bench.table import show
from tests.person import Person
from tests.running import RunningHub

SERVERS = 20


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def is_server(process: psutil.Process) -> bool:
    line = " ".join(process.cmdline())
    return "singleuser" in line or "ipykernel" in line or "gpusession" in line


def pss_mib(pid: int) -> tuple[float, float]:
    """(hub side, servers) of a process tree, MiB."""
    hub = servers = 0.0
    for process in tree(pid):
        try:
            size = process.memory_full_info().pss / 2**20
            if is_server(process):
                servers += size
            else:
                hub += size
        except psutil.NoSuchProcess:
            continue
    return hub, servers


async def fill(url: str, token: str) -> None:
    for n in range(SERVERS):
        async with await Person.enrol(url, token, f"u{n:02d}") as person:
            await person.start_server()


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        with RunningHub(Path(name) / "data", gpus="sim:2") as hub:
            idle = pss_mib(hub.pid)
            asyncio.run(fill(hub.url, hub.admin_token))
            full = pss_mib(hub.pid)
            ours = (idle[0], full[0], full[1] / SERVERS)
            proxy = hub.proxy_command
        with StockHub(Path(name) / "stock", proxy) as stock:
            idle = pss_mib(stock.process.pid)
            asyncio.run(fill(stock.url, stock.token))
            full = pss_mib(stock.process.pid)
            theirs = (idle[0], full[0], full[1] / SERVERS)
    for label, values in (("gpuhub", ours), ("stock JupyterHub", theirs)):
        rows.append([label, *(f"{v:.0f} MiB" for v in values)])
    rows.append(["ratio", *(f"{a / b:.2f}×" for a, b in zip(ours, theirs, strict=True))])
    show(["", "hub side, idle", f"hub side, {SERVERS} servers", "one server"], rows)
