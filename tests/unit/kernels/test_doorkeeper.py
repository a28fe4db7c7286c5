"""Ports that only our own account gets through."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from gpusession.kernels.doorkeeper import Doorkeeper, owner_of
from gpusession.kernels.sockets import ORDER, Address

KNOCK = """
import os, socket, sys
os.setuid(65534) if sys.argv[2] == "else" else None
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as door:
    door.settimeout(5)
    try:
        door.sendall(b"hello")
        print(door.recv(99))
    except ConnectionResetError:
        print(b"")
"""


def free_ports() -> dict[str, int]:
    with_each = [socket.create_server(("127.0.0.1", 0)) for _ in ORDER]
    ports = [one.getsockname()[1] for one in with_each]
    for one in with_each:
        one.close()
    return dict(zip(ORDER, ports, strict=True))


@pytest.fixture
async def door() -> AsyncIterator[Doorkeeper]:
    made = Doorkeeper(Address("127.0.0.1", "tcp", free_ports()))
    await made.open()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(99):
            writer.write(b"said " + data)
        writer.close()

    inner = await asyncio.start_unix_server(answer, f"{made.inside.ip}-{made.inside.ports['iopub']}")
    yield made
    await made.close()
    inner.close()
    assert not made._folder.exists()


async def knock(door: Doorkeeper, who: str) -> str:
    port = door._outside.ports["iopub"]
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KNOCK, str(port), who, stdout=subprocess.PIPE
    )
    return (await asyncio.wait_for(program.communicate(), 20))[0].decode().strip()


async def test_our_own_account_gets_through_both_ways(door: Doorkeeper) -> None:
    assert await knock(door, "own") == "b'said hello'"


@pytest.mark.root
async def test_another_account_is_hung_up_on_before_a_byte_is_passed(door: Doorkeeper) -> None:
    assert await knock(door, "else") == "b''"
    assert await knock(door, "own") == "b'said hello'"


async def test_one_that_is_closed_hangs_up_on_those_who_are_in(door: Doorkeeper) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door._outside.ports["iopub"])
    writer.write(b"one")
    assert await reader.read(99) == b"said one"
    await door.close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


def test_an_end_is_whose_the_table_says_and_nobodys_once_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as end:
            taken, peer = listener.accept()
            assert peer == end.getsockname()
            assert owner_of(peer, listener.getsockname()) == os.geteuid()
            assert owner_of(("127.0.0.2", peer[1]), listener.getsockname()) is None
        assert owner_of(peer, taken.getsockname()) is None
        taken.close()


def test_a_connection_that_waits_for_its_end_is_nobodys() -> None:
    # In this state the table names account 0, whoever it was.
    line = "1: 0100007F:C350 0100007F:1F90 06 00000000:00000000 03:00000D5C 00000000 0 0 0 3 0"
    assert owner_of(("127.0.0.1", 50000), ("127.0.0.1", 8080), [line]) is None
    living = line.replace(" 06 ", " 01 ").replace("00000000 0 0 0", "00000000 1007 0 9")
    assert owner_of(("127.0.0.1", 50000), ("127.0.0.1", 8080), [living]) == 1007


@pytest.mark.parametrize("ip", ["::1", "localhost", "*"])
def test_only_ipv4_can_be_guarded(ip: str) -> None:
    with pytest.raises(ValueError, match=r"IPv4|octets"):
        Doorkeeper(Address(ip, "tcp", free_ports()))
