"""The conversation with the server: orders in, answers and events out, a line each.

Promises: every order that carries a number is answered, with a result or with an error that has a
sentence; an order that cannot be understood does nothing; endless input ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import asyncssh

from gpulease.errors import GpuhubError, TooLarge, Unavailable
from gpusession.worker import protocol
from gpusession.worker.kernels import Owner
from gpusession.worker.work import Work

log = logging.getLogger(__name__)


class Talk(asyncssh.SSHServerSession[bytes]):
    """One conversation."""

    def __init__(self, work: Work, owner: Owner) -> None:
        self._work, self._owner = work, owner
        self._chan: Any = None
        self._heard = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, message: Mapping[str, Any]) -> None:
        if self._chan is not None and not self._chan.is_closing():
            with contextlib.suppress(OSError):  # it is going down
                self._chan.write(json.dumps(message).encode() + b"\n")

    # --- asyncssh.SSHServerSession

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def session_started(self) -> None:
        self.say({"event": "hello", "kernels": [kernel.shown() for kernel in self._work.kernels()]})

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._work.heard()
        self._heard += data
        *lines, rest = self._heard.split(b"\n")
        self._heard = rest
        for line in lines:
            task = asyncio.get_running_loop().create_task(self._answer(bytes(line)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(rest) > protocol.MAX_LINE_BYTES:
            self._heard = bytearray()
            refusal = TooLarge("An order to the worker is too large.")
            self.say({"id": None, "error": refusal.as_dict()})
            self._chan.get_connection().disconnect(asyncssh.DISC_PROTOCOL_ERROR, refusal.message)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """Events are few and small: nothing to hold back."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None

    # --- orders

    async def _answer(self, line: bytes) -> None:
        number: int | None = None
        try:
            order = protocol.read_order(line)
            number = order.id
            answer = {"id": number, "ok": await self._do(order)}
        except GpuhubError as error:
            number = error.details.pop("id", number)
            answer = {"id": number, "error": error.as_dict()}
        except Exception:
            log.exception("an order failed")
            answer = {"id": number, "error": Unavailable("The worker failed unexpectedly.").as_dict()}
        if number is not None:
            self.say(answer)

    async def _do(self, order: Any) -> dict[str, Any]:
        work = self._work
        match order:
            case protocol.StartKernel():
                return await work.start_kernel(order, self._owner)
            case protocol.Run():
                return await work.run(order, self._owner)
            case protocol.AdoptKernel():
                work.adopt(order.target, self._owner)
            case protocol.Signal() if order.target.startswith("k"):
                await work.kernel(order.target).signal(order.number)
            case protocol.Signal():
                await work.program(order.target).signal(order.number)
            case protocol.Kill() if order.target.startswith("k"):
                await work.kernel(order.target).kill()
            case protocol.Kill():
                await work.program(order.target).kill()
            case protocol.Resize():
                work.program(order.target).resize(order.size)
        return {}
