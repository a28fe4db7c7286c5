"""Ann debugs a notebook; eve, on the same machine, connects to whatever listens meanwhile."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.person import Person, Tab, eventually
from tests.service.isolation.conftest import Scene, asked

pytestmark = pytest.mark.root

CODE = "def twice(number):\n    doubled = number * 2\n    return doubled\n\nprint('twice', twice(21))\n"
KNOCKS = """
import json, socket
order = json.dumps({"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "x"}})
result = []
for port in ports:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as door:
            door.settimeout(1)
            door.sendall(f"Content-Length: {len(order)}\\r\\n\\r\\n{order}".encode())
            said = door.recv(100).decode(errors="replace")
    except OSError:
        continue
    if "Content-Length" in said:
        result.append([port, said])
"""


class Debugging:
    """JupyterLab's debugger on one kernel: requests on control, events from iopub."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._session = uuid.uuid4().hex
        self._seq = 0
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.printed = ""

    async def read(self) -> None:
        async for frame in self._ws:
            if frame.type != aiohttp.WSMsgType.TEXT:
                continue
            message = json.loads(frame.data)
            kind, content = message["header"]["msg_type"], message["content"]
            waiting = self._waiting.pop(message["parent_header"].get("msg_id", ""), None)
            if kind in ("debug_reply", "execute_reply") and waiting is not None:
                waiting.set_result(content)
            elif waiting is not None:
                self._waiting[message["parent_header"]["msg_id"]] = waiting
            if kind == "debug_event":
                self.events.append(content)
            elif kind == "stream":
                self.printed += content["text"]

    async def send(self, channel: str, kind: str, content: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": "ann",
            "session": self._session,
            "msg_type": kind,
            "version": "5.3",
            "date": "2026-01-01T00:00:00Z",
        }
        answer = self._waiting[header["msg_id"]] = asyncio.get_running_loop().create_future()
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self._ws.send_json({**message, "channel": channel, "buffers": []})
        return answer

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._seq += 1
        content = {"type": "request", "seq": self._seq, "command": command, "arguments": arguments}
        answer = await self.send("control", "debug_request", content)
        return await asyncio.wait_for(answer, 30)

    async def run(self, code: str) -> asyncio.Future[dict[str, Any]]:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return await self.send("shell", "execute_request", {**content, "allow_stdin": False})

    async def begin(self) -> None:
        said = await self.ask(
            "initialize", clientID="test", adapterID="python", linesStartAt1=True, pathFormat="path"
        )
        assert said["success"], said
        said = await self.ask("attach")
        assert said["success"], said

    async def stop_at(self, code: str, line: int) -> tuple[asyncio.Future[dict[str, Any]], dict[str, Any]]:
        """Set a breakpoint, run the code, and wait until it has stopped there."""
        path = (await self.ask("dumpCell", code=code))["body"]["sourcePath"]
        said = await self.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": line}])
        assert [one["verified"] for one in said["body"]["breakpoints"]] == [True], said
        assert (await self.ask("configurationDone"))["success"]
        seen = len(self.events)
        running = await self.run(code)

        async def stopped() -> Any:
            return [one for one in self.events[seen:] if one["event"] == "stopped"]

        return running, (await eventually(stopped, "the breakpoint", 30))[0]


@asynccontextmanager
async def debugging(person: Person, kernel: str) -> AsyncIterator[Debugging]:
    url = f"{person.server_url}api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    async with person.http.ws_connect(url, headers=person.headers, max_msg_size=0) as ws:
        made = Debugging(ws)
        reading = asyncio.create_task(made.read())
        try:
            yield made
        finally:
            reading.cancel()


async def variables(debugger: Debugging, stopped: dict[str, Any]) -> dict[str, str]:
    """The local variables where it has stopped."""
    stack = await debugger.ask("stackTrace", threadId=stopped["body"]["threadId"])
    frame = stack["body"]["stackFrames"][0]
    scopes = await debugger.ask("scopes", frameId=frame["id"])
    reference = scopes["body"]["scopes"][0]["variablesReference"]
    found = await debugger.ask("variables", variablesReference=reference)
    return {one["name"]: one["value"] for one in found["body"]["variables"]}


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_a_notebook_stops_at_a_breakpoint_and_eve_finds_no_debugger_anywhere(
    scene: Scene, where: str
) -> None:
    before = set(scene.ports(scene.ann))
    async with (
        scene.at_work(scene.ann) as ann,
        debugging(ann, scene.ann.notebooks[where][0]) as debugger,
    ):
        await debugger.begin()
        running, stopped = await debugger.stop_at(CODE, 2)
        assert await variables(debugger, stopped) == {"number": "21"}
        # While it stands still, everything of ann's that listens is knocked at, in debugpy's own words.
        assert set(scene.ports(scene.ann)) == before, "the debugger listens"
        assert await scene.run(scene.eve, "server", KNOCKS, ports=sorted(before)) == []
        assert (await debugger.ask("continue", threadId=stopped["body"]["threadId"]))["success"]
        assert (await asyncio.wait_for(running, 30))["status"] == "ok"
        assert "twice 42" in debugger.printed
        assert (await debugger.ask("disconnect", restart=False, terminateDebuggee=False))["success"]
        # And once more in the same process, as Lab's restart does.
        await debugger.begin()
        running, stopped = await debugger.stop_at(CODE.replace("21", "4"), 3)
        assert await variables(debugger, stopped) == {"number": "4", "doubled": "8"}
        await debugger.ask("continue", threadId=stopped["body"]["threadId"])
        assert (await asyncio.wait_for(running, 30))["status"] == "ok"
        await debugger.ask("disconnect", restart=False, terminateDebuggee=False)


async def test_what_a_debugger_that_listened_would_say_is_what_eve_knocks_for(scene: Scene) -> None:
    # debugpy as ipykernel starts it: the same knock is answered, so the silence above was no mishap.
    code = "import debugpy\nresult = debugpy.listen(('127.0.0.1', 0))[1]"
    async with scene.at_work(scene.ann) as ann:
        tab = await ann.open("open-door.ipynb")
        port = await asked(tab, code)
        [[heard, _]] = await scene.run(scene.eve, "server", KNOCKS, ports=[port])
        assert heard == port
        # A kernel that is under another debugger says so, and does not hang.
        async with debugging(ann, tab.kernel) as debugger:
            said = await debugger.ask("initialize", clientID="test", adapterID="python")
            assert not said["success"]
            assert "Another debugger is at work" in said["message"]
        await ann.api("DELETE", f"{ann.server_url}api/sessions/{tab.session}")


async def test_after_a_move_the_page_hears_that_debugging_ended_and_can_start_it_again(scene: Scene) -> None:
    kernel = scene.ann.notebooks["worker"][0]
    async with scene.at_work(scene.ann) as ann, debugging(ann, kernel) as debugger:
        tab = await Tab(ann, *scene.ann.notebooks["worker"]).connect()
        ann.tabs.append(tab)
        await debugger.begin()
        running, stopped = await debugger.stop_at(CODE, 2)
        await tab.ask("server")

        async def holding() -> bool:
            return "Waiting for the running cell" in (await tab.status())["move"]["message"]

        await eventually(holding, "the move to wait for the cell", 60)
        assert (await tab.status())["placement"] == "worker"
        await debugger.ask("continue", threadId=stopped["body"]["threadId"])
        assert (await asyncio.wait_for(running, 30))["status"] == "ok"
        assert (await tab.settled())["placement"] == "server"
        try:
            assert debugger.events[-1]["event"] == "terminated"
            said = await debugger.ask("setBreakpoints", source={"path": "x"}, breakpoints=[])
            assert not said["success"]
            assert "not on" in said["message"]
            cell = await tab.run("print(treasure)")
            assert "Debugging ended, because the notebook has moved." in cell.text
            await debugger.begin()
            running, stopped = await debugger.stop_at(CODE, 3)
            assert (await variables(debugger, stopped))["doubled"] == "42"
            await debugger.ask("continue", threadId=stopped["body"]["threadId"])
            await asyncio.wait_for(running, 30)
            await debugger.ask("disconnect", restart=False, terminateDebuggee=False)
        finally:
            await tab.flip("worker")
            lease = await ann.lease()  # the last one has ended with the move
            assert lease is not None
            scene.ann.lease = str(lease["id"])
