"""Ports that an ended server or kernel leaves: eve waits for them, and hears nothing that was not for her."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest
from jupyter_client import AsyncKernelClient

from tests.person import Person, eventually
from tests.service.isolation.conftest import SECRET, Scene

pytestmark = pytest.mark.root

WAITS_FOR_A_PORT = """
import select, socket, time
open(ready, "w").close()
deadline, mine, heard = time.monotonic() + seconds, [], ""
while time.monotonic() < deadline:
    for host in ("127.0.0.1", "0.0.0.0"):
        for port in ports:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                taken = socket.socket()
                taken.setsockopt(socket.SOL_SOCKET, option, 1)
                try:
                    taken.bind((host, port))
                    taken.listen()
                    mine.append(taken)
                except OSError:
                    taken.close()
    for one in select.select(mine, [], [], 0.005)[0]:
        visitor, _ = one.accept()
        visitor.settimeout(1)
        visitor.sendall(greeting.encode())
        try:
            heard += visitor.recv(65536).decode(errors="replace") + "|"
        except OSError:
            pass
        visitor.close()
result = [heard, len(mine)]
"""


async def test_a_server_that_died_leaves_its_port_to_nobody_while_it_is_still_asked_for(scene: Scene) -> None:
    ready = scene.hub.data / "homes" / "eve" / "waits"
    async with await Person.enrol(scene.hub.url, scene.hub.admin_token, "dora") as dora:
        await dora.start_server()
        [server] = [
            process
            for process in scene.processes()
            if process.environ().get("JUPYTERHUB_USER") == "dora"
            and "singleuser" in " ".join(process.cmdline())
        ]
        port = int(server.environ()["JUPYTERHUB_SERVICE_URL"].rpartition(":")[2].partition("/")[0])
        taking = asyncio.create_task(
            scene.run(
                scene.eve,
                "server",
                WAITS_FOR_A_PORT,
                ports=[port],
                ready=str(ready),
                seconds=12,
                greeting="HTTP/1.0 200 OK\r\n\r\nevil",
            )
        )

        async def waits() -> bool:
            return ready.exists()

        await eventually(waits, "eve to wait", 30)
        server.kill()
        answers: list[str] = []
        headers = {"Authorization": f"token {dora.token}", "X-Mark": SECRET}
        async with aiohttp.ClientSession(headers=headers) as http:
            while not taking.done():
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(
                        f"{scene.hub.url}user/dora/api/status", allow_redirects=False
                    ) as answer:
                        answers.append(await answer.text())
                await asyncio.sleep(0.02)
        heard, _ = await taking
        assert len(answers) > 20
        assert heard == ""
        assert "evil" not in answers


async def test_who_still_asks_an_ended_kernel_tells_nothing_to_who_took_its_ports(scene: Scene) -> None:
    ready = scene.hub.data / "homes" / "eve" / "listens"
    async with scene.at_work(scene.ann) as ann:
        tab = await ann.open("ended.ipynb")
        file = next(scene.runtime.rglob(f"kernel-{tab.kernel}.json"))
        info = json.loads(file.read_text())
        client = AsyncKernelClient()
        client.load_connection_info(info)
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        ports = [info[f"{channel}_port"] for channel in ("shell", "iopub", "stdin", "hb", "control")]
        await ann.api("DELETE", f"{ann.server_url}api/kernels/{tab.kernel}", expect=204)
        taking = asyncio.create_task(
            scene.run(
                scene.eve,
                "server",
                WAITS_FOR_A_PORT,
                ports=ports,
                ready=str(ready),
                seconds=6,
                greeting="",
            )
        )
        while not taking.done():
            client.execute(f"print({SECRET!r})")
            await asyncio.sleep(0.1)
        heard, taken = await taking
        client.stop_channels()
        assert taken, "the ports were free: the attempt was real"
        assert SECRET not in heard
