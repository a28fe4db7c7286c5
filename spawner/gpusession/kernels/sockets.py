"""The relay's two kinds of ends: the address that clients know, and a kernel process behind it.

Exists so that socket options and addresses are in one place. Promises: no send or receive ever
blocks; no high-water mark drops a message (output is bounded in bytes by `outlet`); the three
request channels to a kernel carry one identity, or it could not ask for input.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import zmq

from gpusession.kernels.outlet import PIPE_MESSAGES

log = logging.getLogger(__name__)

ORDER = ("shell", "iopub", "stdin", "hb", "control")
"""The order of ports in Jupyter's connection files; ipc numbers them from 1."""

_FRONT = {
    "shell": zmq.ROUTER,
    "iopub": zmq.XPUB,
    "stdin": zmq.ROUTER,
    "hb": zmq.ROUTER,
    "control": zmq.ROUTER,
}
_BACK = {"shell": zmq.DEALER, "iopub": zmq.SUB, "stdin": zmq.DEALER, "hb": zmq.DEALER, "control": zmq.DEALER}


@dataclass(frozen=True)
class Address:
    """Where clients find a kernel. Ports that are 0 are chosen at bind."""

    ip: str = "127.0.0.1"
    transport: str = "tcp"
    ports: Mapping[str, int] = field(default_factory=dict)
    curve: tuple[bytes, bytes] | None = None
    """Public and secret key, when clients speak encrypted."""


def _socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    return socket


class Front:
    """The five bound sockets. ``ports`` says where."""

    def __init__(self, context: zmq.Context[Any], address: Address) -> None:
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.ports: dict[str, int] = {}
        self._files: list[str] = []
        try:
            for channel in ORDER:
                self._bind(context, channel, address)
        except zmq.ZMQError:
            self.close()
            raise

    def _bind(self, context: zmq.Context[Any], channel: str, address: Address) -> None:
        socket = self.sockets[channel] = _socket(context, _FRONT[channel])
        if channel == "iopub":
            socket.setsockopt(zmq.SNDHWM, PIPE_MESSAGES)
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each new reader is welcomed, not only the first
        else:
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if address.curve is not None:
            socket.curve_publickey, socket.curve_secretkey = address.curve
            socket.curve_server = True
        port = address.ports.get(channel, 0)
        if address.transport == "ipc":
            port = port or _free_number(address.ip, set(self.ports.values()))
            path = f"{address.ip}-{port}"
            socket.bind(f"ipc://{path}")
            os.chmod(path, 0o600)
            self._files.append(path)
        elif port:
            socket.bind(f"tcp://{address.ip}:{port}")
        else:
            port = socket.bind_to_random_port(f"tcp://{address.ip}")
        self.ports[channel] = port

    def bind_again(self) -> None:
        """Make the files of ipc sockets anew: Jupyter removes them at a restart."""
        for (channel, socket), path in zip(self.sockets.items(), self._files, strict=False):
            if not os.path.exists(path):
                socket.unbind(f"ipc://{path}")
                socket.bind(f"ipc://{path}")
                os.chmod(path, 0o600)
                log.debug("the %s socket was bound again", channel)

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close(0)
        for path in self._files:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue


def _free_number(path: str, taken: set[int]) -> int:
    number = 1
    while number in taken or os.path.exists(f"{path}-{number}"):
        number += 1
    return number


class Back:
    """The connections to one kernel process, and what is known of it."""

    def __init__(
        self, context: zmq.Context[Any], channels: Mapping[str, str], identity: bytes, needed: frozenset[str]
    ) -> None:
        self._needed = needed
        """On which channels it must answer to be taken as live; control may be missing in old kernels."""
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.probes: set[str] = set()
        self.replied: set[str] = set()
        """Channels on which it has answered a probe."""
        self.idle = False
        self.probed_at = float("-inf")
        self.kernel_info: dict[str, Any] | None = None
        self.on_proven: Callable[[], None] | None = None
        for channel in ORDER:
            socket = self.sockets[channel] = _socket(context, _BACK[channel])
            if channel == "iopub":
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            else:
                socket.setsockopt(zmq.ROUTING_ID, identity + (b"-hb" if channel == "hb" else b""))
            socket.setsockopt(zmq.RECONNECT_IVL, 20)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
            socket.connect(channels[channel])

    @property
    def proven(self) -> bool:
        """It has answered, and its publications arrive here."""
        return self.idle and self._needed <= self.replied

    def send(self, channel: str, frames: list[bytes]) -> None:
        self.sockets[channel].send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close(0)


def received(socket: zmq.Socket[bytes], at_most: int) -> Iterator[list[bytes]]:
    """Yield what has arrived, without waiting."""
    for _ in range(at_most):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
