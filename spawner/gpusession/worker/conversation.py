"""The server's half of the conversation with the worker (`gpusession.worker.protocol`).

Promises: every order gets its answer or an error, also when the connection goes; a worker that
talks nonsense is not talked to any further.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import asyncssh

from gpulease import errors
from gpusession.worker.protocol import MAX_LINE_BYTES

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Conversation(asyncssh.SSHClientSession[bytes]):
    """The channel of the conversation: lines out, lines in."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._on_event = on_event
        self._chan: Any = None
        self._heard = bytearray()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._send({"id": number, **order})
        self._waiting[number] = answer
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    def tell(self, order: dict[str, Any]) -> None:
        with contextlib.suppress(errors.LinkLost):
            self._send({"id": None, **order})

    def _send(self, order: dict[str, Any]) -> None:
        line = json.dumps(order).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise errors.InvalidOption(
                "The arguments and the environment are too large.", hint="Pass less, or a file."
            )
        try:
            self._chan.write(line)
        except OSError as error:
            raise errors.LinkLost("The worker cannot be reached any more.") from error

    def fail(self, error: errors.GpuhubError) -> None:
        for waiting in [*self._waiting.values(), self.hello]:
            if not waiting.done():
                waiting.set_exception(error)
        if not self.hello.cancelled():
            self.hello.exception()  # nobody may be waiting for it any more

    # --- asyncssh.SSHClientSession

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        try:
            for line in lines:
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.error("the worker said something that makes no sense: %s", error)
            self._chan.get_connection().abort()
        if len(self._heard) > MAX_ANSWER_BYTES:
            self._chan.get_connection().abort()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("event") == "hello":
            if not self.hello.done():
                self.hello.set_result(message)
        elif "event" in message:
            self._on_event(message)
        else:
            waiting = self._waiting.get(message.get("id") or 0)
            if waiting is None or waiting.done():
                return
            if "error" in message:
                waiting.set_exception(errors.from_dict(message["error"], status=503))
            else:
                waiting.set_result(message["ok"])

    def connection_lost(self, exc: Exception | None) -> None:
        # Without the conversation the connection is of no use.
        self.fail(errors.LinkLost("The worker cannot be reached any more."))
        self._chan.get_connection().abort()
