"""The same on a server that a real hub started: its terminal, what that sees, and the hub's Stop button."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.person import Person, eventually
from tests.running import RunningHub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("hub"), gpus="sim:1") as running:
        yield running


class Typing:
    """A terminal of the server, over its websocket."""

    def __init__(self, person: Person, name: str, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.person, self.name, self.ws = person, name, ws

    @classmethod
    async def open(cls, person: Person) -> Typing:
        terminal = await person.api("POST", f"{person.server_url}api/terminals")
        url = f"{person.server_url}terminals/websocket/{terminal['name']}?token={person.token}"
        return cls(person, terminal["name"], await person.http.ws_connect(url, headers=person.headers))

    async def run(self, command: str, seconds: float = 60) -> str:
        """Type a command; returns what it printed."""
        end = uuid.uuid4().hex[:8]
        await self.ws.send_json(["stdin", f"{command}; echo '{end[:4]}''{end[4:]}' $?\n"])
        heard = ""
        async with asyncio.timeout(seconds):
            while f"{end} " not in heard:
                kind, *rest = await self.ws.receive_json()
                heard += rest[0] if kind == "stdout" else ""
        return heard

    async def close(self) -> None:
        await self.ws.close()
        await self.person.api("DELETE", f"{self.person.server_url}api/terminals/{self.name}")


def secrets_of(data: Path) -> set[str]:
    """Every long word in the settings that hub, broker and culler are given."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                if isinstance(one, str) and any(word in name for word in ("token", "secret", "password")):
                    found.add(one)
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)

    for file in (data / "run").glob("*.json"):
        collect(json.loads(file.read_text()))
    return {one for one in found if len(one) >= 8}


async def test_the_terminal_of_a_hubs_server_uses_the_lease_and_knows_no_secret(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "tess") as tess:
        await tess.start_server()
        typing = await Typing.open(tess)
        seen = await typing.run("env; echo cuda=[$CUDA_VISIBLE_DEVICES]")
        assert "cuda=[]" in seen
        assert "GPUHUB_SOCKET=" in seen
        secrets = secrets_of(hub.data)
        assert secrets, "no secret was found to look for"
        assert [one for one in secrets if one in seen] == []
        assert "is on" in await typing.run("gpu on")
        assert (await tess.lease())["state"] == "active"  # type: ignore[index]
        worker = await typing.run("gpu run sh -c 'env; echo cuda=[$CUDA_VISIBLE_DEVICES]'")
        assert "cuda=[]" not in worker
        assert "JUPYTERHUB_API_TOKEN" not in worker
        assert [one for one in secrets if one in worker] == []
        assert "simulated" in await typing.run("gpu")
        assert "Released." in await typing.run("gpu off")
        assert await tess.lease() is None
        await typing.close()
        await tess.stop_server()


async def test_the_hubs_stop_button_saves_what_is_on_the_gpu_and_hangs_programs_up(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "stan") as stan:
        await stan.start_server()
        tab = await stan.open("a.ipynb")
        await tab.run("x = list(range(5))")
        await tab.flip("worker")
        await tab.run("x.append('there')")
        typing = await Typing.open(stan)
        await typing.ws.send_json(["stdin", "gpu run sleep 600\n"])

        async def running() -> bool:
            return bool((await stan.server_api("GET", "status"))["commands"])

        await eventually(running, "the command")
        await stan.stop_server()
        assert await stan.lease() is None
        await stan.start_server()
        again = await stan.open("a.ipynb")

        async def offered() -> Any:
            notices = (await again.status())["notices"]
            return next((one for one in notices if one["kind"] == "restore-offer"), None)

        notice = await eventually(offered, "the offer")
        body = {"snapshot": notice["snapshot"]}
        await stan.server_api("POST", f"kernels/{again.kernel}/restore", json=body)
        assert await again.value("x[-1]") == "'there'"
        await stan.stop_server()
