"""A port of this machine that stays a server's own, also while nobody listens on it.

Exists because the proxy goes on sending a person's requests, with tokens and cookies, to a server that has
just died, until the hub notices: whoever took the port in that moment would receive them. Promises: from
`close_to_others` on until `release`, no other socket of this machine can be bound there, of whatever
account. It works by what Linux does with ``SO_REUSEADDR`` (socket(7)): a server that sets it, as Tornado
does, binds beside our own socket, which never listens, as long as ours sets it too; once ours does not,
nobody binds there any more, and the server, which listens already, is not concerned.
"""

from __future__ import annotations

import socket
from typing import Self

LOOPBACK = "127.0.0.1"


class Reservation:
    """One free port, kept. A context manager until it is `close_to_others`, which keeps it beyond."""

    def __init__(self) -> None:
        """Choose a free port. Raises OSError."""
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((LOOPBACK, 0))
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        self._kept = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if not self._kept:
            self.release()

    def close_to_others(self) -> None:
        """The server listens: from now on nobody else can."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._kept = True

    def release(self) -> None:
        """Nobody is led there any more. Idempotent."""
        self._socket.close()
