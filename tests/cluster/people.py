"""People on the test cluster: an account, a running server, and a notebook with variables to lose.

A server is not stopped after each test (that costs more than most tests do) but with the module, by
`stop_all`; notebooks and leases go with their test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.cluster.release import Release
from tests.person import Person, Tab, eventually

SET = "import os, numpy as np\nfield = np.arange(1000.0)\nview = field[10:20]\nnames = {'a': [1, 2]}"
SAME = "(np.shares_memory(field, view), view.sum().item(), names)"
VALUE = "(True, 145.0, {'a': [1, 2]})"
DEVICE = "os.environ['NVIDIA_VISIBLE_DEVICES']"
STOP_SECONDS = 180.0


async def person(gpuhub: Release, name: str) -> AsyncIterator[Person]:
    """Somebody whose server runs; what they opened and hold is let go of afterwards."""
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, name) as somebody:
        server = (await somebody.hub_api("GET", f"users/{name}"))["servers"].get("", {})
        if not server.get("ready"):
            await somebody.start_server()
        yield somebody
        await somebody.broker_release()
        for session in {tab.session for tab in somebody.tabs}:
            await somebody.api("DELETE", f"{somebody.server_url}api/sessions/{session}")


async def notebook(somebody: Person, path: str = "n.ipynb") -> Tab:
    """A notebook with variables."""
    tab = await somebody.open(path)
    cell = await tab.run(SET)
    assert cell.status == "ok", cell.text
    return tab


async def goes_on(tab: Tab, until: asyncio.Task[Any]) -> None:
    """Run cells until something has happened; the lease must be the same and go on."""
    before = await held(tab.person)
    while not until.done():
        assert await tab.value(SAME) == VALUE
        await asyncio.sleep(0.5)
    await until
    assert await held(tab.person) == before


async def held(somebody: Person) -> str:
    """The lease that somebody holds, by its id."""
    lease = await somebody.lease()
    assert lease is not None
    assert lease["state"] == "active", lease
    return str(lease["id"])


async def reconnected(tab: Tab) -> Tab:
    """The same notebook after the way to it was lost, as a browser finds it again."""
    somebody = tab.person

    async def reachable() -> bool:
        async with somebody.http.get(f"{somebody.server_url}api/status", headers=somebody.headers) as answer:
            return answer.status == 200

    await eventually(reachable, "the way to the server", 120)
    again = await Tab(somebody, tab.kernel, tab.session, tab.path).connect()
    somebody.tabs.append(again)
    return again


def stop_all(gpuhub: Release) -> None:
    """Stop every server; returns when none is left."""
    headers = {"Authorization": f"token {gpuhub.admin_token}"}
    with httpx.Client(base_url=f"{gpuhub.url}hub/api/", headers=headers, timeout=30) as hub:
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            servers = [
                (user["name"], server)
                for user in hub.get("users").json()
                for server in (user.get("servers") or {}).values()
            ]
            if not servers:
                return
            for name, server in servers:
                if server["pending"] != "stop":
                    hub.delete(f"users/{name}/server")
            time.sleep(0.5)
    raise AssertionError(f"servers that did not stop: {servers}")
