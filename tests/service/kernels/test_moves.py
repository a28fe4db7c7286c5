"""Kernels that move under real clients: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service.kernels.conftest import Server, until


async def test_a_stream_of_cells_goes_through_moves_each_once_in_order(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import os; seen = []")
    cells = []
    sending = True

    async def send() -> None:
        while sending:
            number = len(cells)
            cells.append(reader.send(f"seen.append({number}); print('cell', {number}, os.getpid())"))
            await asyncio.sleep(0.01)

    sender = asyncio.create_task(send())
    for placement in ("worker", "server", "worker", "server"):
        status = await server.flip(manager, placement)
        assert (status.placement, status.move.step) == (placement, "done"), [
            one for one in status.move.verdicts if one.verdict == "left"
        ]
    sending = False
    await sender
    for cell in cells:
        await reader.finish(cell)
    assert len(cells) > 20
    assert await reader.value("seen") == list(range(len(cells)))
    pids = set()
    for number, cell in enumerate(cells):
        assert cell.status == "ok"
        assert (cell.states.count("busy"), cell.states.count("idle")) == (1, 1)
        words = cell.text.split()
        assert words[:2] == ["cell", str(number)]
        pids.add(words[2])
        assert [kind for kind, _ in cell.published if kind == "execute_input"] == ["execute_input"]
    assert len(pids) == 5
    assert await reader.value("__import__('os').environ.get('CUDA_VISIBLE_DEVICES')") == ""
    assert not any("gpuhub" in kind for kind in reader.kinds)


async def test_cells_held_behind_a_failing_cell_are_aborted_and_later_ones_run(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import time")
    failing = reader.send("time.sleep(1.0); 1 / 0")
    held = [reader.send(f"x = {n}") for n in range(3)]
    await server.flip(manager, "worker")
    for cell in (failing, *held):
        await reader.finish(cell)
    assert (failing.status, failing.errors) == ("error", ["ZeroDivisionError"])
    assert [cell.status for cell in held] == ["aborted"] * 3
    assert (await server.status(manager)).placement == "worker"
    assert (await reader.run("y = 1")).status == "ok"
    assert not await reader.value("'x' in globals()")


async def test_cells_that_ask_not_to_stop_on_error_go_on_after_a_failing_one(server: Server) -> None:
    _, reader = await server.open()
    failing = reader.send("import time; time.sleep(0.3); 1 / 0", stop_on_error=False)
    after = reader.send("x = 1", stop_on_error=False)
    await reader.finish(failing)
    await reader.finish(after)
    assert (failing.status, after.status) == ("error", "ok")


async def test_a_move_falls_between_two_cells_of_a_run_all(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import os, time; pids = []")
    cells = [reader.send("time.sleep(0.3); pids.append(os.getpid())") for _ in range(12)]
    await server.flip(manager, "worker")
    for cell in cells:
        await reader.finish(cell)
    pids = await reader.value("pids")
    assert len(pids) == 12
    assert len(set(pids)) == 2


async def test_an_interrupt_reaches_the_running_cell_while_others_are_held(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("import time")
    running = reader.send("time.sleep(100)")
    held = reader.send("x = 1")
    await server.flip(manager, "worker", wait=False)
    assert server.session.kernels[manager.kernel_id].status().busy
    await until(lambda: running.runs, "the cell to run")
    await manager.interrupt_kernel()
    await reader.finish(running, 10)
    await reader.finish(held, 10)
    assert running.ename == "KeyboardInterrupt"
    assert held.status == "aborted"
    await until(lambda: server.session.kernels[manager.kernel_id].placement == "worker", "the move to end")
    await manager.interrupt_kernel()  # nothing runs: harmless
    running = reader.send("import time; time.sleep(100)")
    await until(lambda: running.runs, "the cell to run on the worker")
    await manager.interrupt_kernel()
    assert (await reader.finish(running, 10)).ename == "KeyboardInterrupt"


async def test_an_interrupt_by_message_works_on_both_sides(server: Server) -> None:
    manager, reader = await server.open()
    manager.kernel_spec.interrupt_mode = "message"
    for placement in ("server", "worker"):
        if placement == "worker":
            await server.flip(manager, "worker")
        running = reader.send("import time; time.sleep(100)")
        await until(lambda cell=running: cell.runs, "the cell to run")
        await manager.interrupt_kernel()
        assert (await reader.finish(running, 10)).ename == "KeyboardInterrupt"


async def test_an_open_question_is_answered_before_the_move_and_another_one_after_it(server: Server) -> None:
    manager, reader = await server.open()
    asking = reader.send("name = input('Who? ')", allow_stdin=True)
    await until(lambda: reader.questions, "the question")
    await server.flip(manager, "worker", wait=False)
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: "your answer" in kernel.status().move.message, "the word about the question")
    reader.client.input("ann")
    await reader.finish(asking)
    await until(lambda: kernel.placement == "worker", "the move")
    asking = reader.send("other = input('And? ')", allow_stdin=True)
    await until(lambda: len(reader.questions) == 2, "the second question")
    reader.client.input("bob")
    await reader.finish(asking)
    assert await reader.value("(name, other)") == ("ann", "bob")


async def test_a_page_that_is_opened_while_cells_are_held_gets_its_answers(server: Server) -> None:
    manager, reader = await server.open()
    running = reader.send("import time; time.sleep(1.5)")
    await until(lambda: server.relay(manager).in_flight, "the cell to run")
    await server.relay_call(manager, "hold")
    second = await server.reader(manager)  # waits for kernel_info, as a page does
    held = second.send("x = 1")
    await asyncio.sleep(0.3)
    assert not held.replies
    await reader.finish(running)
    await server.relay_call(manager, "release")
    assert (await second.finish(held)).status == "ok"
    assert (await reader.run("x += 1")).status == "ok"


async def test_a_message_that_is_delivered_three_times_runs_once(server: Server) -> None:
    _, reader = await server.open()
    await reader.run("count = 0")
    client = reader.client
    message = client.session.msg("execute_request", {"code": "count += 1", "silent": False})
    frames = client.session.serialize(message)
    for _ in range(3):
        client.shell_channel.socket.send_multipart(frames)
    cell = await reader.finish(reader.cells[message["header"]["msg_id"]])
    assert cell.status == "ok"
    assert await reader.value("count") == 1


async def test_a_message_with_a_false_signature_is_not_passed_on(server: Server) -> None:
    _, reader = await server.open()
    client = reader.client
    message = client.session.msg("execute_request", {"code": "evil = 1", "silent": False})
    frames = client.session.serialize(message)
    frames[1] = b"0" * 64
    client.shell_channel.socket.send_multipart(frames)
    assert not await reader.value("'evil' in globals()")


async def test_comms_die_with_their_process_and_the_page_hears_it(server: Server) -> None:
    manager, reader = await server.open()
    opened = await reader.run(
        "from comm import create_comm\n"
        "class Echo:\n"
        "    def __init__(self): self.comm = create_comm(target_name='echo', data={'a': 1})\n"
        "    def __reduce__(self): return (str, ('a widget',))\n"
        "echo = Echo(); got = []\n"
        "_ = echo.comm.on_msg(lambda m: got.append(m['content']['data']))"
    )
    comm_id = next(content["comm_id"] for kind, content in opened.published if kind == "comm_open")
    client = reader.client

    def speak(data: str) -> None:
        body = {"comm_id": comm_id, "data": {"say": data}}
        client.shell_channel.send(client.session.msg("comm_msg", body))

    speak("hello")
    await until(lambda: reader.client.shell_channel.is_alive(), "the channel")
    assert await reader.value("got") == [{"say": "hello"}]
    await server.flip(manager, "worker", consent=True)
    await until(lambda: ("comm_close", {"comm_id": comm_id, "data": {}}) in reader.orphans, "comm_close")
    speak("again")
    cell = await reader.run("print('quiet')")
    assert cell.text == "quiet\n"
    opened = await reader.run("c = create_comm(target_name='echo') if 'create_comm' in globals() else None")
    assert opened.status == "ok"


async def test_comms_pass_a_running_cell(server: Server) -> None:
    _, reader = await server.open()
    await reader.run(
        "from comm import create_comm; got = []\n"
        "c = create_comm(target_name='echo')\nc.on_msg(lambda m: got.append(1))"
    )
    cell = reader.send("import asyncio\nwhile not got: await asyncio.sleep(0.02)")
    comm_id = next(
        content["comm_id"]
        for one in reader.cells.values()
        for kind, content in one.published
        if kind == "comm_open"
    )
    client = reader.client
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": comm_id, "data": {}}))
    assert (await reader.finish(cell, 10)).status == "ok"


async def test_a_refused_move_leaves_everything_and_shows_what_would_stay(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run("x = [1]; import threading; lock = threading.Lock(); lock.acquire()")
    before = await reader.value("__import__('os').getpid()")
    status = await server.flip(manager, "worker")
    assert (status.placement, status.move.step) == ("server", "refused")
    assert {one.name: one.verdict for one in status.move.verdicts}["lock"] == "left"
    assert await reader.value("__import__('os').getpid()") == before
    assert await reader.value("x") == [1]


async def test_what_the_session_asks_of_a_kernel_is_not_seen_by_its_clients(server: Server) -> None:
    manager, reader = await server.open()
    await reader.run(
        "class Loud:\n"
        "    def __reduce__(self):\n"
        "        print('saved loudly')\n"
        "        return (str, ('loud',))\n"
        "loud = Loud()"
    )
    cell = await reader.run("1 + 1")
    count = await reader.value("get_ipython().execution_count")
    await server.flip(manager, "worker", consent=True)
    await asyncio.sleep(0.2)
    assert "saved loudly" not in "".join(one.text for one in reader.cells.values())
    assert await reader.value("get_ipython().execution_count") == count
    assert cell.status == "ok"


async def test_output_of_a_background_thread_goes_on_under_its_cell_after_a_save(server: Server) -> None:
    manager, reader = await server.open()
    cell = await reader.run(
        "import threading, time\n"
        "def tick():\n"
        "    for n in range(40):\n"
        "        print('tick', n, flush=True); time.sleep(0.05)\n"
        "threading.Thread(target=tick).start()"
    )
    await server.call(server.session.kernels[manager.kernel_id].save("manual"))
    await until(lambda: "tick 39" in cell.text, "the last tick")
    assert cell.text.split() == [word for n in range(40) for word in ("tick", str(n))]


@pytest.mark.parametrize("back", [False, True])
async def test_an_interrupt_during_the_save_stops_what_waits_and_not_the_move(
    server: Server, back: bool
) -> None:
    manager, reader = await server.open()
    if back:
        await server.flip(manager, "worker")
    await reader.run(
        "import time\n"
        "class Slow:\n"
        "    def __reduce__(self):\n"
        "        time.sleep(0.5)\n"
        "        return (str, ('slow',))\n"
        "slow = [Slow() for _ in range(3)]"
    )
    target = "server" if back else "worker"
    await server.flip(manager, target, wait=False, consent=True)
    kernel = server.session.kernels[manager.kernel_id]
    await until(lambda: kernel.status().move.step == "saving", "the save")
    held = reader.send("x = 1")
    await asyncio.sleep(0.2)
    await manager.interrupt_kernel()
    assert (await reader.finish(held, 10)).status == "aborted"
    await until(lambda: kernel.status().move.ended_at, "the end of the move")
    assert kernel.status().placement == target


async def test_followers_hear_that_a_cell_runs_before_and_after_a_move_and_when_it_is_over(
    server: Server,
) -> None:
    manager, reader = await server.open()
    heard: list[bool] = []

    def hear(kind: str, key: str, data: str) -> None:
        if (kind, key) == ("kernel", manager.kernel_id):
            heard.append(json.loads(data)["busy"])

    server.session.subscribe(hear)
    for _ in ("on the server", "on the worker"):
        heard.clear()
        cell = reader.send("import time; time.sleep(2)")
        await until(lambda: heard and heard[-1], "the news that it runs")
        await reader.finish(cell)
        await until(lambda: not heard[-1], "the news that it is over")
        await server.flip(manager, "worker")
