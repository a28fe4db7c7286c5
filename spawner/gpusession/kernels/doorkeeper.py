"""Ports of this machine that only our own account gets through.

Exists for programs that know nothing but plain TCP (VS Code's own Jupyter, say) and say so in the
connection file of a kernel that the server hosts for them: on a plain port every account of the
machine could read what the kernel prints. Promises: before a byte is passed on, the other end of a
connection was seen in the machine's table to be a socket of this very account; whoever else connects,
from here or elsewhere, is hung up on. Why that is no race: while our end of a connection lives, the
kernel of the machine gives its pair of addresses to nobody else, and a socket keeps its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gpusession.kernels.sockets import ORDER, Address

log = logging.getLogger(__name__)

TABLE = Path("/proc/net/tcp")
"""All connections of this network: proc(5). Numbers are in hexadecimal, addresses in the machine's order."""
ESTABLISHED = "01"
PIECE = 1 << 16


class Doorkeeper:
    """Stands before the sockets of a relay. All methods run on one loop."""

    def __init__(self, outside: Address) -> None:
        """``outside``: an IPv4 address with its five ports. Raises ValueError for another one."""
        ipaddress.IPv4Address(outside.ip)
        self._outside = outside
        self._folder = Path(tempfile.mkdtemp(prefix="gpuhub-"))
        self.inside = Address(str(self._folder / "k"), "ipc", {name: at for at, name in enumerate(ORDER, 1)})
        """Where the relay binds instead."""
        self._servers: list[asyncio.Server] = []
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. Raises OSError."""
        for channel in ORDER:
            path = f"{self.inside.ip}-{self.inside.ports[channel]}"
            server = await asyncio.start_server(
                lambda reader, writer, path=path: self._knock(reader, writer, path),
                self._outside.ip,
                self._outside.ports[channel],
            )
            self._servers.append(server)

    async def close(self) -> None:
        """Hang up on everybody. Idempotent."""
        for server in self._servers:
            server.close()
        for task in self._passing:
            task.cancel()
        if self._passing:
            await asyncio.wait(self._passing)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _knock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass(reader, writer, path)
        finally:
            self._passing.discard(task)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        ours, theirs = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        uid = await asyncio.to_thread(owner_of, theirs, ours)
        if uid != os.geteuid():
            log.warning("account %s knocked at a kernel's port and was turned away", uid)
            return
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        ways = [
            asyncio.ensure_future(_copy(reader, inner_writer)),
            asyncio.ensure_future(_copy(inner_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()


def owner_of(end: tuple[str, int], other: tuple[str, int], table: Iterable[str] | None = None) -> int | None:
    """Return whose socket ``end`` is, of an established connection to ``other``; None: nobody's here."""
    wanted = [_written(end), _written(other), ESTABLISHED]
    for line in TABLE.read_text().splitlines() if table is None else table:
        fields = line.split()
        if fields[1:4] == wanted:
            return int(fields[7])
    return None


def _written(address: tuple[str, int]) -> str:
    [number] = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"
