"""Ports: the public one as asked for, the inner ones remembered.

Servers that outlive a restart know hub and broker by their inner addresses, so these stay the same
from start to start, as long as nobody else took one in between.
"""

from __future__ import annotations

import contextlib
import json
import socket

from pydantic import BaseModel

from gpuhub.up.folders import DataFolder
from gpuhub.up.options import UpRefused

FILE = "ports.json"
INNER = "127.0.0.1"


class Ports(BaseModel):
    public: int
    proxy_api: int
    hub: int
    broker: int


def choose_ports(data: DataFolder, address: str, port: int) -> Ports:
    """Return free ports. Raises `UpRefused` when the public one is in use."""
    remembered: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        read = json.loads((data.path / FILE).read_text())
        remembered = {name: value for name, value in read.items() if isinstance(value, int)}
    if port:
        _check(address, port)
    taken = {port}
    inner: dict[str, int] = {}
    for name in ("proxy_api", "hub", "broker"):
        wanted = remembered.get(name, 0)
        inner[name] = (
            wanted if wanted and wanted not in taken and is_free(INNER, wanted) else free_port(taken)
        )
        taken.add(inner[name])
    ports = Ports(public=port or free_port(taken, address), **inner)
    data.write(FILE, ports.model_dump_json())
    return ports


def _check(address: str, port: int) -> None:
    try:
        _bind(address, port)
    except PermissionError:
        raise UpRefused(
            f"Port {port} needs root.", "Choose a port above 1023 with --port, or start as root."
        ) from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == 99:
            raise UpRefused(
                f"{address} is not an address of this machine.", "Choose another --address."
            ) from None
        raise UpRefused(
            f"Port {port} of {address} is already in use.",
            "Stop what uses it, or choose another with --port.",
        ) from None


def is_free(address: str, port: int) -> bool:
    try:
        _bind(address, port)
    except OSError:
        return False
    return True


def free_port(taken: set[int], address: str = INNER) -> int:
    while True:
        port = _bind(address, 0)
        if port not in taken:
            return port


def _bind(address: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        return int(probe.getsockname()[1])
