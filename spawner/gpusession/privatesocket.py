"""The server's private Unix socket: how its own terminals and kernels reach the session.

Exists so that the ``gpu`` command needs no token and answers while the Jupyter server is busy: it
is served on the session's own loop. Promises: only the account that runs the server gets an
answer (the folder is 0700, the socket 0600, and the kernel's word about the peer is checked), and
the path is short enough for every system.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_server.auth import AllowAllAuthorizer, IdentityProvider, User
from tornado import httpserver, httputil, netutil, web
from tornado.iostream import IOStream

log = logging.getLogger(__name__)

LONGEST_PATH = 107
"""``sun_path`` of struct sockaddr_un holds 108 bytes with its zero (unix(7))."""
NAME = "gpu.sock"
VARIABLE = "GPUHUB_SOCKET"
"""Tells terminals and kernels where the socket is."""
MOST_BODY_BYTES = 1024 * 1024

Route = tuple[str, type[web.RequestHandler], dict[str, Any]]


class _OwnerOnly(httpserver.HTTPServer):
    def handle_stream(self, stream: IOStream, address: Any) -> None:
        uid = peer_uid(stream.socket)
        if uid != os.geteuid():
            log.warning("account %d knocked at the private socket and was turned away", uid)
            stream.close()
            return
        super().handle_stream(stream, address)


class _Owner(IdentityProvider):
    """Who gets through the socket is the server's owner."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._name = name

    def get_user(self, handler: Any) -> User:
        return User(username=self._name)


class PrivateSocket(httputil.HTTPServerConnectionDelegate):
    """An HTTP server on a Unix socket. `open` and `close` on the session's loop."""

    def __init__(self, folder: Path, user: str, settings: Mapping[str, Any]) -> None:
        self.path = folder / NAME
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            raise ValueError(f"the path of the private socket is too long: {self.path}")
        self._routes: list[Route] = []
        self._settings = {
            **settings,
            "base_url": "/",
            "identity_provider": _Owner(user),
            "authorizer": AllowAllAuthorizer(),
            "disable_check_xsrf": True,  # no browser reaches a Unix socket
            "allow_remote_access": True,
            "default_handler_class": web.ErrorHandler,
            "default_handler_args": {"status_code": 404},
        }
        self._app = web.Application([], **self._settings)
        self._server = _OwnerOnly(self, max_body_size=MOST_BODY_BYTES)

    def start_request(self, server_conn: object, request_conn: Any) -> httputil.HTTPMessageDelegate:
        """For tornado: whose request this is, is decided by what is mounted now."""
        return self._app.start_request(server_conn, request_conn)

    def mount(self, routes: list[Route]) -> None:
        """Add routes; what was mounted later is asked first. At any time, on the session's loop."""
        self._routes = [*routes, *self._routes]
        self._app = web.Application(self._routes, **self._settings)

    async def open(self) -> None:
        """Begin to answer. A socket left behind by an earlier life is replaced."""
        self._server.add_socket(netutil.bind_unix_socket(str(self.path), mode=0o600))

    async def close(self) -> None:
        self._server.stop()
        with contextlib.suppress(OSError):
            self.path.unlink()
            if self.path.parent.name.startswith("gpuhub-"):
                self.path.parent.rmdir()
        await self._server.close_all_connections()


def peer_uid(sock: socket.socket) -> int:
    """Return the account on the other side of a connected Unix socket (SO_PEERCRED, unix(7))."""
    creds = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", creds)[1])


def own_folder(unit: str | None, shared: list[str | None]) -> Path:
    """Return a folder that is this server's alone: its unit's, else a fresh one below one of ``shared``.

    A folder is taken only where it is ours alone (0700) and its path is short enough.
    """
    if unit and _ours_alone(Path(unit)) and _short(Path(unit)):
        return Path(unit)
    for base in shared:
        if base and os.path.isdir(base) and os.access(base, os.W_OK):
            folder = Path(tempfile.mkdtemp(prefix="gpuhub-", dir=base))
            if _short(folder):
                return folder
            folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="gpuhub-", dir="/tmp"))


def _short(folder: Path) -> bool:
    return len(os.fsencode(folder / NAME)) <= LONGEST_PATH


def _ours_alone(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not stat.S_IMODE(found.st_mode) & 0o077
    )
