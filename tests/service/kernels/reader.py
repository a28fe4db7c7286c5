"""A client that reads everything a kernel says, all the time, as a browser does."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections import defaultdict
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient


class Cell:
    """What came back for one request."""

    def __init__(self) -> None:
        self.replies: list[dict[str, Any]] = []
        self.published: list[tuple[str, dict[str, Any]]] = []

    @property
    def states(self) -> list[str]:
        return [content["execution_state"] for kind, content in self.published if kind == "status"]

    @property
    def text(self) -> str:
        return "".join(content["text"] for kind, content in self.published if kind == "stream")

    @property
    def errors(self) -> list[str]:
        return [content["ename"] for kind, content in self.published if kind == "error"]

    @property
    def ename(self) -> str:
        """The reply's: an interrupt in a cell's first moment has no error output, only a line."""
        return str(self.replies[0].get("ename"))

    @property
    def status(self) -> str:
        assert len(self.replies) == 1, self.replies
        return str(self.replies[0]["status"])

    @property
    def runs(self) -> bool:
        """The kernel has begun: from now on an interrupt reaches it."""
        return any(kind == "execute_input" for kind, _ in self.published)

    @property
    def done(self) -> bool:
        return bool(self.replies) and "idle" in self.states


class Reader:
    """Reads shell, iopub, stdin and control of one client."""

    def __init__(self, client: AsyncKernelClient) -> None:
        self.client = client
        self.cells: dict[str, Cell] = defaultdict(Cell)
        self.kinds: list[str] = []
        self.questions: list[dict[str, Any]] = []
        self.orphans: list[tuple[str, dict[str, Any]]] = []
        """Published without a parent."""
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        for channel in ("shell", "iopub", "stdin", "control"):
            self._tasks.append(asyncio.create_task(self._read(channel)))

    async def _read(self, channel: str) -> None:
        get = getattr(self.client, f"get_{channel}_msg")
        while True:
            try:
                # Looked at anew every so often: jupyter_client sends past asyncio's view of a socket, and
                # what arrives in that moment wakes nobody.
                message = await get(timeout=0.5)
            except queue.Empty:
                continue
            parent, content = message["parent_header"].get("msg_id", ""), message["content"]
            self.kinds.append(message["msg_type"])
            if channel == "stdin":
                self.questions.append(content)
            elif channel != "iopub":
                self.cells[parent].replies.append(content)
            elif parent:
                self.cells[parent].published.append((message["msg_type"], content))
            else:
                self.orphans.append((message["msg_type"], content))

    def send(self, code: str, **more: Any) -> Cell:
        return self.cells[self.client.execute(code, **more)]

    async def run(self, code: str, patience_seconds: float = 25.0, **more: Any) -> Cell:
        return await self.finish(self.send(code, **more), patience_seconds)

    async def finish(self, cell: Cell, patience_seconds: float = 25.0) -> Cell:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_seconds
        while not cell.done:
            assert loop.time() < until, (cell.replies, cell.published[-5:])
            await asyncio.sleep(0.01)
        return cell

    async def value(self, expression: str) -> Any:
        """Evaluate in the kernel; return what its repr evaluates to here."""
        cell = await self.run("", user_expressions={"it": expression})
        assert cell.status == "ok"
        answer = cell.replies[0]["user_expressions"]["it"]
        assert answer["status"] == "ok", answer
        return eval(answer["data"]["text/plain"])

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.client.stop_channels()
