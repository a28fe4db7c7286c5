"""Uvicorn, told from outside when to end: streams first, then what is under way, then the process.

Promises: SIGTERM ends the process within seconds, with every answer finished and every event stream closed;
signals are ours (uvicorn's own handling would end the process before the broker is put away).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

GRACE_SECONDS = 5
KEEP_ALIVE_SECONDS = 75
"""Longer than the proxy keeps an idle connection, or it would send into a closed one."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, host: str, port: int, *, stop: asyncio.Event, closing: asyncio.Event) -> None:
    """Serve until ``stop`` is set. Raises `OSError` when the address is taken."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    listener = _listen(host, port)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        closing.set()
        server.should_exit = True
        await running
    finally:
        stopping.cancel()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(False)
    except OSError:
        listener.close()
        raise
    return listener
