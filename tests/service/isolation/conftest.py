"""Ann works; eve has an account on the same machine and wants to know. One real hub for this folder.

Each has a server, a notebook beside it and one on a GPU. What eve may try is told to her: every path,
port and process id, found by root. So a test fails where access is possible, not where it can be guessed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.person import Person, Tab
from tests.running import RunningHub

SECRET = "ann-keeps-this-to-herself"


@dataclass
class Account:
    """Somebody at work."""

    name: str
    token: str
    server_token: str = ""
    server_pid: int = 0
    uid: int = -1
    lease: str = ""
    notebooks: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Kernel, session and path, by where it runs: server or worker."""


@dataclass
class Scene:
    """The machine as root sees it, and ways to run code as one of the two."""

    hub: RunningHub
    ann: Account
    eve: Account

    @asynccontextmanager
    async def at_work(self, who: Account) -> AsyncIterator[Person]:
        async with Person(self.hub.url, who.name, who.token) as person:
            yield person

    async def run(self, who: Account, where: str, code: str, **known: Any) -> Any:
        """Run code in somebody's notebook, as a cell that is given ``known`` and sets ``result``."""
        async with self.at_work(who) as person:
            tab = await Tab(person, *who.notebooks[where]).connect()
            person.tabs.append(tab)
            return await asked(tab, code, **known)

    @property
    def settings(self) -> dict[str, Any]:
        """The hub's own settings: where everything is."""
        return dict(json.loads((self.hub.data / "run" / "hub.json").read_text()))

    @property
    def broker_url(self) -> str:
        return f"{self.settings['broker_url']}/services/gpu/api/v1/"

    @property
    def runtime(self) -> Path:
        return Path(self.settings["local"]["runtime"])

    def processes(self, who: Account | None = None) -> list[psutil.Process]:
        """All processes of this hub, or those of one person."""
        found = [psutil.Process(self.hub.pid)]
        found += found[0].children(recursive=True)
        return [one for one in found if who is None or owner(one) == who.uid]

    def ports(self, who: Account) -> list[int]:
        """Where somebody's processes listen on TCP."""
        found = set()
        for process in self.processes(who):
            try:
                connections = process.net_connections("tcp")
            except psutil.NoSuchProcess:
                continue
            found |= {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}
        return sorted(found)

    def paths(self, *roots: Path, not_of: Account) -> list[str]:
        """Everything below ``roots`` that is not ``not_of``'s own."""
        found = []
        for root in roots:
            for folder, folders, files in os.walk(root):
                for name in [*folders, *files]:
                    path = os.path.join(folder, name)
                    try:
                        if os.lstat(path).st_uid != not_of.uid:
                            found.append(path)
                    except FileNotFoundError:
                        continue
        return found


def owner(process: psutil.Process) -> int:
    try:
        return int(process.uids().real)
    except psutil.NoSuchProcess:
        return -2


async def asked(tab: Tab, code: str, **known: Any) -> Any:
    """Run code in a notebook; return its ``result``."""
    mark = "result-of-the-attempt:"
    given = "".join(
        f"{name} = __import__('json').loads({json.dumps(value)!r})\n" for name, value in known.items()
    )
    cell = await tab.run(f"{given}{code}\nprint({mark!r} + __import__('json').dumps(result))")
    assert cell.status == "ok", cell.text
    return json.loads(cell.text.rpartition(mark)[2])


async def settle_in(hub: RunningHub, name: str) -> Account:
    """Start somebody's server, with a notebook beside it and one on a GPU."""
    async with await Person.enrol(hub.url, hub.admin_token, name) as person:
        here = Account(name, person.token)
        await person.start_server()
        for where in ("server", "worker"):
            tab = await person.open(f"{where}.ipynb")
            if where == "worker":
                await tab.run(f"treasure = {SECRET!r} + '-of-{name}'")
                await tab.flip("worker")
            here.notebooks[where] = tab.kernel, tab.session, tab.path
        kernel = here.notebooks["worker"][0]
        await person.server_api("POST", f"kernels/{kernel}/snapshots", json={})
        lease = await person.lease()
        assert lease is not None
        here.lease = str(lease["id"])
        return here


@pytest.fixture(scope="package")
def scene() -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="gpuhub-test-"))
    os.chmod(folder, 0o711)  # people's accounts pass through to their homes
    try:
        with RunningHub(folder / "hub", gpus="sim:2") as hub:
            assert hub.ready["accounts"] == "numbered", hub.log()
            yield asyncio.run(_enter(hub))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _enter(hub: RunningHub) -> Scene:
    ann, eve = await asyncio.gather(settle_in(hub, "ann"), settle_in(hub, "eve"))
    scene = Scene(hub, ann, eve)
    for who in (ann, eve):
        who.uid = (hub.data / "homes" / who.name).stat().st_uid
        for process in scene.processes(who):
            found = process.environ()
            if "JUPYTERHUB_API_TOKEN" in found and "singleuser" in " ".join(process.cmdline()):
                who.server_token, who.server_pid = found["JUPYTERHUB_API_TOKEN"], process.pid
        assert who.server_token, "a server without a token"
    return scene
