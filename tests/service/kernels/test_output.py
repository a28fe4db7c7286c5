"""Much output: nothing lost where readers keep up, visibly cut where they cannot, and never in the way."""

from __future__ import annotations

import asyncio
import re

import zmq

from gpusession.kernels.switchboard import Switchboard
from tests.service.kernels.conftest import Server, until

FLOOD = """
import json
kernel = get_ipython().kernel
parent = kernel.get_parent("shell")
for n in range({count}):
    kernel.session.send(
        kernel.iopub_socket, "stream", {{"name": "stdout", "text": f"{{n}} " + "x" * {size} + "\\n"}},
        parent=parent, ident=b"stream.stdout",
    )
"""


async def test_a_flood_arrives_whole_and_in_order(server: Server) -> None:
    _, reader = await server.open()
    cell = await reader.run(FLOOD.format(count=30_000, size=400), 100)
    numbers = [int(line.split()[0]) for line in cell.text.splitlines()]
    assert numbers == list(range(30_000))
    assert (cell.status, cell.states) == ("ok", ["busy", "idle"])


async def test_a_flood_during_a_move_arrives_whole(server: Server) -> None:
    manager, reader = await server.open()
    cells = [reader.send(FLOOD.format(count=3000, size=200)) for _ in range(4)]
    await server.flip(manager, "worker")
    await server.flip(manager, "server")
    for cell in cells:
        await reader.finish(cell)
        assert [int(line.split()[0]) for line in cell.text.splitlines()] == list(range(3000))


async def test_output_beyond_the_budget_is_cut_visibly_and_the_states_come_through(server: Server) -> None:
    manager, reader = await server.open()
    board: Switchboard = server.relay(manager)._board
    board._outlet._budget = 1_000_000
    sleeper = _one_who_does_not_read(manager)
    try:
        cell = await reader.run(FLOOD.format(count=20_000, size=500), 100)
        assert (cell.status, cell.states) == ("ok", ["busy", "idle"])
    finally:
        sleeper.close(0)
    await until(lambda: "left out" in cell.text, "the count of what was cut")
    assert "Output was cut here" in cell.text
    said = re.search(r"(\d+) outputs \(([\d.]+) MB\) were left out", cell.text)
    assert said is not None
    arrived = [int(line.split()[0]) for line in cell.text.splitlines() if line[:1].isdigit() and "x" in line]
    assert len(arrived) + int(said[1]) == 20_000
    assert arrived == sorted(arrived)


async def test_a_client_that_reads_nothing_holds_up_the_others_only_for_a_while(server: Server) -> None:
    manager, reader = await server.open()
    sleeper = _one_who_does_not_read(manager)
    try:
        cell = reader.send(FLOOD.format(count=8000, size=300))
        await until(lambda: cell.replies, "the reply")
        assert "idle" not in cell.states
        await reader.finish(cell, 60)
        assert "takes no output any more" in cell.text
        later = await reader.run("print('on it goes')", 10)
        assert later.text == "on it goes\n"
    finally:
        sleeper.close(0)


async def test_replies_and_interrupts_do_not_wait_for_output(server: Server) -> None:
    manager, reader = await server.open()
    sleeper = _one_who_does_not_read(manager)
    try:
        cell = reader.send(FLOOD.format(count=5000, size=300) + "\nimport time; time.sleep(100)")
        await asyncio.sleep(2)
        await manager.interrupt_kernel()
        await until(lambda: cell.replies, "the reply", 5)
        assert cell.replies[0]["ename"] == "KeyboardInterrupt"
        assert (await server.status(manager)).placement == "server"
    finally:
        sleeper.close(0)


async def test_large_displays_with_buffers_come_through(server: Server) -> None:
    _, reader = await server.open()
    cell = await reader.run("from IPython.display import display, HTML; display(HTML('y' * 20_000_000))")
    data = next(content["data"] for kind, content in cell.published if kind == "display_data")
    assert len(data["text/html"]) == 20_000_000


def _one_who_does_not_read(manager: object) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 10)
    socket.setsockopt(zmq.RCVBUF, 4096)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(f"tcp://127.0.0.1:{manager.iopub_port}")  # type: ignore[attr-defined]
    return socket
