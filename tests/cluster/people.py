"""People on the test cluster: an account, a running server, and a notebook with variables to lose.

A server is not stopped after each test (that costs more than most tests do) but with the module, by
`stop_all`; notebooks and leases go with their test.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx

from tests.cluster.release import Release
from tests.person import Person, Tab

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
