"""A person at a browser, without the browser: signs in, starts a server, runs cells, flips the switch.

Speaks to a running gpuhub over HTTP and one kernel websocket per notebook, through the proxy, as
a browser tab does. A reconnect of the websocket is an error here: a move must not need one.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

PATIENCE_SECONDS = 120.0


@dataclass
class Cell:
    """What one cell left behind."""

    status: str = "pending"
    count: int | None = None
    outputs: list[dict[str, Any]] = field(default_factory=list)
    replies: int = 0
    idles: int = 0
    ename: str | None = None

    @property
    def text(self) -> str:
        """Everything that was printed or displayed as text, in order."""
        parts = []
        for output in self.outputs:
            kind = output["output_type"]
            if kind == "stream":
                parts.append(output["text"])
            elif kind in ("execute_result", "display_data"):
                parts.append(output["data"].get("text/plain", "") + "\n")
            elif kind == "error":
                parts.append(f"{output['ename']}: {output['evalue']}\n")
        return "".join(parts)


class Tab:
    """One notebook's websocket."""

    def __init__(self, person: Person, kernel: str, session: str, path: str) -> None:
        self.person, self.kernel, self.session, self.path = person, kernel, session, path
        self._cells: dict[str, Cell] = {}
        self._done: dict[str, asyncio.Event] = {}
        self.errors: list[str] = []

    async def connect(self) -> Self:
        url = f"{self.person.server_url}api/kernels/{self.kernel}/channels?session_id={uuid.uuid4().hex}"
        self._ws = await self.person.http.ws_connect(url, headers=self.person.headers, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        return self

    async def close(self) -> None:
        self._reader.cancel()
        await self._ws.close()

    async def _read(self) -> None:
        async for frame in self._ws:
            if frame.type != aiohttp.WSMsgType.TEXT:
                continue
            message = json.loads(frame.data)
            parent = message["parent_header"].get("msg_id", "")
            cell = self._cells.get(parent)
            if cell is None:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "execute_reply":
                cell.replies += 1
                cell.status, cell.count = content["status"], content.get("execution_count")
                cell.ename = content.get("ename")
            elif kind == "status" and content["execution_state"] == "idle":
                cell.idles += 1
            elif kind == "stream":
                last = cell.outputs[-1] if cell.outputs else None
                if last and last["output_type"] == "stream" and last["name"] == content["name"]:
                    last["text"] += content["text"]
                else:
                    cell.outputs.append({"output_type": "stream", **content})
            elif kind in ("execute_result", "display_data", "error"):
                cell.outputs.append({"output_type": kind, **content})
            if cell.replies and cell.idles:
                self._done[parent].set()
        self.errors.append("the websocket was closed")
        for event in self._done.values():
            event.set()

    async def submit(self, code: str, *, stop_on_error: bool = True) -> str:
        """Send a cell without waiting; returns its message id for `result`."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": self.person.name,
            "session": self.session,
            "msg_type": "execute_request",
            "version": "5.3",
            "date": "2026-01-01T00:00:00Z",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": stop_on_error,
        }
        self._cells[header["msg_id"]], self._done[header["msg_id"]] = Cell(), asyncio.Event()
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self._ws.send_json({**message, "channel": "shell", "buffers": []})
        return header["msg_id"]

    async def result(self, msg_id: str, patience_seconds: float = PATIENCE_SECONDS) -> Cell:
        await asyncio.wait_for(self._done[msg_id].wait(), patience_seconds)
        if self.errors:
            raise AssertionError(self.errors)
        return self._cells[msg_id]

    async def run(self, code: str, patience_seconds: float = PATIENCE_SECONDS) -> Cell:
        return await self.result(await self.submit(code), patience_seconds)

    async def value(self, expression: str) -> str:
        """The repr of an expression in the notebook."""
        cell = await self.run(f"print(repr({expression}))")
        assert cell.status == "ok", cell.text
        return cell.text.strip()

    # --- the switch

    async def status(self) -> dict[str, Any]:
        return await self.person.server_api("GET", f"kernels/{self.kernel}")

    async def ask(self, placement: str, *, left: str = "refuse") -> dict[str, Any]:
        body = {"placement": placement, "left": left}
        return await self.person.server_api("PUT", f"kernels/{self.kernel}/placement", json=body, expect=202)

    async def settled(self, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Wait until no move is under way; returns the kernel's status."""

        async def no_move() -> dict[str, Any] | None:
            status = await self.status()
            move = status["move"]
            return status if move is None or move["ended_at"] else None

        return await eventually(no_move, "the move to end", patience_seconds)

    async def flip(self, placement: str, *, left: str = "refuse") -> dict[str, Any]:
        """Ask and wait until it is so."""
        await self.ask(placement, left=left)
        status = await self.settled()
        assert status["placement"] == placement, status
        return status


class Person:
    """Somebody with an account on a hub, over a token of their own."""

    def __init__(self, url: str, name: str, token: str) -> None:
        self.url, self.name, self.token = url.rstrip("/") + "/", name, token
        self.headers = {"Authorization": f"token {token}"}
        self.server_url = f"{self.url}user/{name}/"
        self.tabs: list[Tab] = []

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tab in self.tabs:
            await tab.close()
        await self.http.close()

    @classmethod
    async def enrol(cls, url: str, admin_token: str, name: str) -> Person:
        """Make an account by the hub's API and a token for it."""
        base = url.rstrip("/") + "/hub/api"
        headers = {"Authorization": f"token {admin_token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.post(f"{base}/users/{name}") as answer:
                assert answer.status in (201, 409), await answer.text()
            async with http.post(f"{base}/users/{name}/tokens", json={"note": "test"}) as answer:
                assert answer.status == 201, await answer.text()
                return cls(url, name, (await answer.json())["token"])

    async def api(
        self, method: str, url: str, *, expect: int | None = None, token: str | None = None, **kwargs: Any
    ) -> Any:
        headers = {"Authorization": f"token {token}"} if token else self.headers
        async with self.http.request(method, url, headers=headers, **kwargs) as answer:
            text = await answer.text()
            if expect is None:
                assert answer.status < 400, f"{method} {url}: {answer.status} {text}"
            else:
                assert answer.status == expect, f"{method} {url}: {answer.status} {text}"
            return json.loads(text) if text else None

    async def hub_api(self, method: str, path: str, **kwargs: Any) -> Any:
        return await self.api(method, f"{self.url}hub/api/{path}", **kwargs)

    async def broker(self, method: str, path: str, **kwargs: Any) -> Any:
        return await self.api(method, f"{self.url}services/gpu/api/v1/{path}", **kwargs)

    async def server_api(self, method: str, path: str, **kwargs: Any) -> Any:
        return await self.api(method, f"{self.server_url}gpuhub/api/v1/{path}", **kwargs)

    async def start_server(self, **options: Any) -> None:
        await self.hub_api("POST", f"users/{self.name}/server", json={"user_options": options})

        async def ready() -> bool:
            user = await self.hub_api("GET", f"users/{self.name}")
            return bool(user["servers"].get("", {}).get("ready"))

        await eventually(ready, "the server to start")

    async def stop_server(self) -> None:
        await self.hub_api("DELETE", f"users/{self.name}/server")

        async def gone() -> bool:
            user = await self.hub_api("GET", f"users/{self.name}")
            return "" not in user["servers"]

        await eventually(gone, "the server to stop", 180)

    async def open(self, path: str, kernel_name: str = "python3") -> Tab:
        """Open a notebook: a session with a kernel, and a websocket to it."""
        url = f"{self.server_url}api/contents/{path}"
        notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        await self.api("PUT", url, json={"type": "notebook", "content": notebook})
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": kernel_name}}
        session = await self.api("POST", f"{self.server_url}api/sessions", json=body)
        tab = await Tab(self, session["kernel"]["id"], session["id"], path).connect()
        self.tabs.append(tab)
        return tab

    async def broker_release(self) -> None:
        """Release whatever is held and wait until it is gone."""
        lease = await self.lease()
        if lease is not None:
            await self.broker("DELETE", f"leases/{lease['id']}")

            async def gone() -> bool:
                return await self.lease() is None

            await eventually(gone, "the lease to end")

    async def lease(self) -> dict[str, Any] | None:
        """The lease of this person that has not ended, if any."""
        leases = (await self.broker("GET", "leases"))["leases"]
        return leases[0] if leases else None


async def eventually(check: Any, what: str, patience_seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask until the answer is true; fails with the last answer and how long it was waited for."""
    deadline = time.monotonic() + patience_seconds
    answer = None
    while time.monotonic() < deadline:
        answer = await check()
        if answer:
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"waited {patience_seconds:.0f} s for {what}; last answer: {answer!r}")
