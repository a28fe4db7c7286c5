"""The ``gpu`` command's way to its server: HTTP over the private Unix socket, nothing else.

Exists so that a terminal needs no token and no heavy import: answers are plain dictionaries in the
form of `gpulease.session`. Raises errors of `gpulease.errors`, as the server raised them.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

from gpulease import errors
from gpusession.shell import frames

PREFIX = "/gpuhub/api/v1/"
QUIET_SECONDS = 60.0
"""A stream says something every 15 s; silence this long means that the server is gone."""


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Server:
    """This terminal's server. ``path`` is the private socket's; None: nobody named one."""

    def __init__(self, path: str | None, timeout_seconds: float = 120.0) -> None:
        if not path:
            raise errors.Unavailable(
                "This terminal does not belong to a gpuhub server.",
                hint="Open a terminal in JupyterLab or VS Code of your server (GPUHUB_SOCKET is not set).",
            )
        self._path, self._timeout = path, timeout_seconds

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer ({} for none). Raises errors of gpulease."""
        connection = _OverSocket(self._path, self._timeout)
        try:
            answer = self._ask(connection, method, path, body)
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise _silent(error) from error
        finally:
            connection.close()
        data = _read(raw)
        if answer.status >= 400:
            raise errors.from_dict(data, status=answer.status)
        return data if isinstance(data, dict) else {}

    def status(self) -> dict[str, Any]:
        return self.call("GET", "status")

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Follow what changes: (kind, data), a status first. Raises Unavailable at the end."""
        connection = _OverSocket(self._path, QUIET_SECONDS)
        try:
            answer = self._ask(connection, "GET", "events", None)
            if answer.status >= 400:
                raise errors.from_dict(_read(answer.read()), status=answer.status)
            kind = ""
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: "):
                    yield kind, json.loads(line[6:])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _silent(error) from error
        finally:
            connection.close()
        raise errors.Unavailable("Your server has ended the connection.")

    def command(self) -> socket.socket:
        """Return a connection that speaks frames (`gpusession.shell.frames`)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout)
            sock.connect(self._path)
            sock.sendall(
                f"POST {PREFIX}commands HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                f"Upgrade: {frames.PROTOCOL}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                # One byte at a time: what follows the head is frames.
                if not (byte := sock.recv(1)):
                    raise ConnectionError("closed")
                answer += byte
        except OSError as error:
            sock.close()
            raise _silent(error) from error
        if b" 101 " not in answer.split(b"\r\n", 1)[0]:
            sock.close()
            raise errors.Unavailable(
                "Your server speaks another version of gpuhub than this command.",
                hint="Stop your server and start it again.",
            )
        sock.settimeout(None)
        return sock

    def _ask(
        self, connection: _OverSocket, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body)
        connection.request(method, PREFIX + path, data, {"Content-Type": "application/json"})
        return connection.getresponse()


def _silent(error: BaseException) -> errors.Unavailable:
    why = "does not answer" if isinstance(error, TimeoutError) else "cannot be reached"
    return errors.Unavailable(
        f"Your gpuhub server {why} ({error}).", hint="It may be stopping. Try again in a moment."
    )


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None
