"""``gpu run`` on a real worker, through a real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from tests.service.session.desk import Desk, eventually, server_with_broker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Desk]:
    async with server_with_broker() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def desk(server: Desk) -> AsyncIterator[Desk]:
    """The module's server, with no lease and no files of another test."""
    yield server
    for lease in list(server.broker.leases):
        await server.broker.finish(lease)

    async def clear() -> bool:
        status = await server.api("GET", "status")
        return status["lease"] is None and not status["commands"]

    await eventually(clear, "the last lease's end")
    server.broker.leases.clear()
    for file in server.home.glob("*"):
        if file.is_file():
            file.unlink()


async def test_a_program_runs_on_the_gpu_and_its_exit_code_comes_back(desk: Desk) -> None:
    code = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES']); print('oh', file=sys.stderr); exit(37)"
    ran = await desk.gpu("run", sys.executable, "-c", code)
    assert (ran.code, ran.text) == (37, "SIM-0\n"), ran.err
    assert "oh\n" in ran.err


async def test_the_lease_that_it_asked_for_goes_back_afterwards(desk: Desk) -> None:
    assert (await desk.gpu("run", "true")).code == 0

    async def released() -> bool:
        return await desk.lease_state() is None

    await eventually(released, "the release")
    (lease,) = desk.broker.leases.values()
    assert lease.reason == "released"


async def test_a_lease_that_was_there_before_stays(desk: Desk) -> None:
    assert (await desk.gpu("on")).code == 0
    assert (await desk.gpu("run", "true")).code == 0
    await asyncio.sleep(0.5)
    assert await desk.lease_state() == "active"


async def test_bytes_pass_unchanged_both_ways(desk: Desk) -> None:
    data = os.urandom(3_000_000)
    ran = await desk.gpu("run", "cat", stdin=data)
    assert ran.code == 0, ran.err
    assert ran.out == data


async def test_it_runs_in_the_terminals_folder_with_the_terminals_environment(desk: Desk) -> None:
    folder = desk.home / "work"
    folder.mkdir()
    ran = await desk.gpu("run", "sh", "-c", "pwd; echo $COLOUR", env={"COLOUR": "blue"}, cwd=folder)
    assert ran.text == f"{folder}\nblue\n"


async def test_a_program_that_is_not_there_is_127_and_says_so(desk: Desk) -> None:
    ran = await desk.gpu("run", "no-such-program")
    assert ran.code == 127
    assert "was not found" in ran.err


async def test_a_program_that_cannot_be_run_is_126(desk: Desk) -> None:
    (desk.home / "notes.txt").write_text("hello")
    ran = await desk.gpu("run", "./notes.txt")
    assert ran.code == 126, ran.err


async def test_ctrl_c_reaches_the_program(desk: Desk) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while true; do sleep 0.1; done"
    typed = await desk.gpu_begins("run", "sh", "-c", script)
    await typed.says(b"ready")
    typed.process.send_signal(signal.SIGINT)
    ran = await typed.end()
    assert ran.code == 5
    assert b"caught" in ran.out


async def test_a_second_ctrl_c_ends_and_a_third_kills_what_does_not_listen(desk: Desk) -> None:
    script = "trap '' INT; trap 'echo asked' TERM; echo ready; while true; do sleep 0.1; done"
    typed = await desk.gpu_begins("run", "sh", "-c", script)
    await typed.says(b"ready")
    for _ in range(2):
        typed.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
    await typed.says(b"asked")
    typed.process.send_signal(signal.SIGINT)
    ran = await typed.end()
    assert ran.code == 137
    assert "killed" in ran.err


async def test_a_terminal_that_goes_away_takes_its_program_with_it(desk: Desk) -> None:
    mark = desk.home / "alive"
    script = f"echo ready; while true; do date +%s%N > {mark}; sleep 0.1; done"
    typed = await desk.gpu_begins("run", "sh", "-c", script)
    await typed.says(b"ready")
    typed.process.kill()

    async def silent() -> bool:
        before = mark.read_text()
        await asyncio.sleep(0.5)
        return mark.read_text() == before

    await eventually(silent, "the program's end")

    async def released() -> bool:
        return await desk.lease_state() is None

    await eventually(released, "the release")


async def test_with_keep_it_goes_on_without_its_terminal(desk: Desk) -> None:
    done = desk.home / "done"
    typed = await desk.gpu_begins(
        "run", "--keep", "sh", "-c", f"echo ready; sleep 2; echo late; touch {done}"
    )
    await typed.says(b"ready")
    typed.process.kill()
    await eventually(done.exists, "the program's own end")
    (log,) = desk.home.glob("gpu-run-*.log")
    assert log.read_text() == "late\n"

    async def released() -> bool:
        return await desk.lease_state() is None

    await eventually(released, "the release")


async def test_it_waits_in_line_and_runs_when_its_turn_comes(desk: Desk) -> None:
    blocker = await desk.broker.ask("bob", gpus=2)
    typed = await desk.gpu_begins("run", "echo", "my turn")

    async def waits() -> bool:
        return await desk.lease_state() == "queued"

    await eventually(waits, "the queue")
    assert [one["command"] for one in (await desk.api("GET", "status"))["commands"]] == ["echo 'my turn'"]
    await desk.broker.finish(blocker.id)
    ran = await typed.end()
    assert (ran.code, ran.text) == (0, "my turn\n")


async def test_ctrl_c_in_line_leaves_it_and_runs_nothing(desk: Desk) -> None:
    await desk.broker.ask("bob", gpus=2)
    typed = await desk.gpu_begins("run", "touch", str(desk.home / "ran"))

    async def waits() -> bool:
        return await desk.lease_state() == "queued"

    await eventually(waits, "the queue")
    typed.process.send_signal(signal.SIGINT)
    ran = await typed.end()
    assert ran.code == 130
    assert "nothing ran" in ran.err

    async def gone() -> bool:
        return await desk.lease_state() is None

    await eventually(gone, "the request's end")
    assert not (desk.home / "ran").exists()


async def test_a_limit_is_said_and_nothing_runs(desk: Desk) -> None:
    ran = await desk.gpu("run", "--gpus", "3", "true")
    assert ran.code == 125
    assert "2 GPU(s) at once" in ran.err
    told = await desk.gpu("on", "--gpus", "3", "--json")
    assert told.code == 3
    assert told.data["error"]["details"]["allowed"] == 2


async def test_the_gpu_is_lost_while_it_runs(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; sleep 60")
    await typed.says(b"ready")
    desk.workers.kill_all()
    ran = await typed.end()
    assert ran.code == 255
    assert "lost" in ran.err


async def test_it_is_activity_while_it_runs(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; cat")
    await typed.says(b"ready")
    assert (await desk.api("GET", "activity"))["commands"] == 1
    assert (await desk.gpu("status")).text.count("command") == 1
    assert (await typed.end()).code == 0
    assert (await desk.api("GET", "activity"))["commands"] == 0


async def test_off_now_hangs_it_up(desk: Desk) -> None:
    typed = await desk.gpu_begins("run", "sh", "-c", "echo ready; sleep 60")
    await typed.says(b"ready")
    off = await desk.gpu("off", "--now")
    assert off.code == 0, off.err
    ran = await typed.end()
    assert ran.code == 129
    assert "hung up" in ran.err


async def test_one_after_the_other_each_gets_a_gpu(desk: Desk) -> None:
    for number in range(4):
        ran = await desk.gpu("run", "echo", str(number))
        assert (ran.code, ran.text) == (0, f"{number}\n"), ran.err


async def test_many_at_once_share_one_lease(desk: Desk) -> None:
    typed = [await desk.gpu_begins("run", "sh", "-c", f"sleep 1; echo {n}") for n in range(6)]
    ran = [await one.end() for one in typed]
    assert [one.text for one in ran] == [f"{n}\n" for n in range(6)], [one.err for one in ran]
    assert len(desk.broker.leases) == 1


async def test_a_slow_reader_gets_everything_and_the_program_waits_for_it(desk: Desk) -> None:
    command = "gpu run head -c 40000000 /dev/zero | (sleep 5; wc -c)"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=desk.env(), stdout=asyncio.subprocess.PIPE, cwd=desk.home
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out.strip() == b"40000000"


async def test_a_reader_that_has_enough_ends_the_program(desk: Desk) -> None:
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        "gpu run yes | head -n 2; echo ${PIPESTATUS[0]}",
        env=desk.env(),
        stdout=asyncio.subprocess.PIPE,
        cwd=desk.home,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 40)
    assert out == b"y\ny\n141\n"

    async def over() -> bool:
        return not (await desk.api("GET", "status"))["commands"]

    await eventually(over, "the program's end")


async def test_input_that_nobody_reads_does_not_keep_ctrl_c_from_the_program(desk: Desk) -> None:
    command = "yes | gpu run sh -c 'trap \"exit 7\" INT; echo ready >&2; while true; do sleep 0.1; done'"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        f"{command} & pid=$!; wait $pid; echo $?",
        env=desk.env(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=desk.home,
    )
    assert process.stderr is not None
    while b"ready" not in await process.stderr.readline():
        pass
    (gpu,) = [
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if "gpu" in " ".join(one.cmdline()[:2])
    ]
    # A job in the background has SIGINT ignored by its shell; what it is told otherwise is passed on.
    gpu.send_signal(signal.SIGTERM)
    out, _ = await asyncio.wait_for(process.communicate(), 40)
    assert out.strip() == b"143"


async def test_with_json_what_became_of_it_goes_beside_its_output(desk: Desk) -> None:
    ran = await desk.gpu("run", "--json", "sh", "-c", "echo out; exit 3")
    assert (ran.code, ran.text) == (3, "out\n")
    told = json.loads(ran.err)
    assert told["exit"] == 3
    assert told["lease"]["devices"][0]["simulated"] is True
    assert "link" not in told["lease"]
    ran = await desk.gpu("run", "--json", "no-such-program")
    assert json.loads(ran.err)["error"]["code"] == "invalid-option"
