"""Talk to the launcher: what the hub's spawner, the broker's local backend and `gpuhub up` use.

One connection per request: nothing to repair when the launcher was restarted, and a slow request
(PAM) never stands in front of a quick one. Every operation may be repeated safely, so a request
that met a restarting launcher is tried again until ``patience_seconds`` have passed.

Raises only `gpulease.errors`: `Unavailable` when the launcher does not answer, and what the
launcher itself answers (`BadRequest`, `NotAllowed`, `NotFound`, `Conflict`).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gpulease.errors import Unavailable, from_dict
from gpuspawner.launcher.protocol import (
    MAX_ANSWER_BYTES,
    UNITS,
    Authenticate,
    Forget,
    List,
    Request,
    Shutdown,
    Start,
    Stop,
    UnitOrder,
    UnitSeen,
    WriteFile,
)

RETRY_SECONDS = 0.1


class LauncherClient:
    """The launcher behind ``socket_path``.

    ``patience_seconds``: how long a launcher that is not there is waited for (a restart takes
    about one second). ``answer_seconds``: how long one answer may take.
    """

    def __init__(
        self, socket_path: str | Path, *, patience_seconds: float = 10.0, answer_seconds: float = 30.0
    ) -> None:
        self.socket_path = str(socket_path)
        self._patience_seconds = patience_seconds
        self._answer_seconds = answer_seconds

    async def start(self, order: UnitOrder) -> UnitSeen:
        """Start a unit. One that exists already, running or exited, is answered as it is.

        To start an exited one again under the same id (servers), `forget` it first.
        """
        return UnitSeen.model_validate(await self._ask(Start(order=order)))

    async def stop(self, unit_id: str, grace_seconds: float | None = None) -> None:
        """Ask the unit to stop (SIGTERM); after ``grace_seconds`` all its processes are killed.

        Returns at once. None takes the order's own grace. Asked again, the earlier deadline
        counts. Unknown and exited units are fine.
        """
        grace = None if grace_seconds is None else float(grace_seconds)
        await self._ask(Stop(id=unit_id, grace_seconds=grace))

    async def list(self, *, processes: bool = True) -> list[UnitSeen]:
        """Return every unit that exists or has exited and is not forgotten."""
        return UNITS.validate_python(await self._ask(List(processes=processes)))

    async def forget(self, unit_id: str) -> None:
        """Drop an exited unit, its folder and its log. A running one is refused (`Conflict`)."""
        await self._ask(Forget(id=unit_id))

    async def write_file(self, unit_id: str, name: str, text: str) -> None:
        """Put a file (0600, the account's) into the unit's folder, in one step."""
        await self._ask(WriteFile(id=unit_id, name=name, text=text))

    async def authenticate(self, user: str, password: str) -> bool:
        """Return whether PAM accepts this person, and the account may be used here."""
        return bool(await self._ask(Authenticate(user=user, password=password)))

    async def shutdown(self) -> None:
        """End the launcher itself. Units go on; the next launcher finds them."""
        await self._ask(Shutdown())

    async def _ask(self, request: Request) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        line = request.model_dump_json().encode() + b"\n"
        while True:
            try:
                async with asyncio.timeout(self._answer_seconds):
                    answer = await self._exchange(line)
                break
            except PermissionError:
                raise Unavailable("The launcher does not admit this account.") from None
            except TimeoutError:
                raise Unavailable("The launcher does not answer.") from None
            except (OSError, EOFError) as error:
                if loop.time() >= deadline:
                    raise Unavailable("The launcher is not running.") from error
                await asyncio.sleep(RETRY_SECONDS)
        try:
            reply = json.loads(answer)
            ok, content = reply["ok"], reply.get("result")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Unavailable("The launcher's answer cannot be understood.") from None
        if not ok:
            raise from_dict(reply.get("error"))
        return content

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.socket_path, limit=MAX_ANSWER_BYTES)
        try:
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
        finally:
            writer.close()
        if not answer.endswith(b"\n"):
            raise EOFError("the launcher closed the connection")
        return answer
