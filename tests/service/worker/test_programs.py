"""`gpu run` and `gpu shell` on a real worker: bytes, signals, terminals, ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys

import pytest

from gpulease.errors import InvalidOption
from gpusession.kernels.ports import LINK_LOST, Terminal
from gpusession.worker.far import FarProgram
from gpusession.worker.link import WorkerConnection
from tests.service.worker.worker_process import RunningWorker, all_of, lives, read_until, until


async def shell(link: WorkerConnection, worker: RunningWorker, text: str, **more: object) -> FarProgram:
    return await link.run(["sh", "-c", text], env=worker.env, cwd=str(worker.home), **more)  # type: ignore[arg-type]


async def test_outputs_and_exit_status_come_back_apart(worker: RunningWorker, link: WorkerConnection) -> None:
    program = await shell(link, worker, "echo out; echo err >&2; exit 37")
    assert await all_of(program) == (b"out\n", b"err\n", 37)


async def test_a_program_without_output_ends_too(worker: RunningWorker, link: WorkerConnection) -> None:
    assert await all_of(await shell(link, worker, "true")) == (b"", b"", 0)


async def test_it_runs_in_the_folder_and_environment_that_were_asked_for(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    (worker.home / "data").mkdir()
    program = await link.run(
        ["sh", "-c", 'pwd; echo "$COLOUR"'],
        env={**worker.env, "COLOUR": "grün"},
        cwd=str(worker.home / "data"),
    )
    out, _, status = await all_of(program)
    assert out.decode() == f"{worker.home}/data\ngrün\n"
    assert status == 0


async def test_no_environment_makes_it_see_other_gpus_or_a_servers_secrets(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    asked = {
        **worker.env,
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "GPUHUB_LEASE": "another",
        "JUPYTERHUB_API_TOKEN": "secret",
        "GPUHUB_BROKER_TOKEN": "secret",
    }
    program = await link.run(["env"], env=asked, cwd="/")
    out, _, _ = await all_of(program)
    lines = out.decode().splitlines()
    assert "CUDA_VISIBLE_DEVICES=SIM-0" in lines
    assert "NVIDIA_VISIBLE_DEVICES=void" in lines
    assert "GPUHUB_LEASE=lease-1" in lines
    assert "secret" not in out.decode()


async def test_200_mib_pass_both_ways_unharmed(worker: RunningWorker, link: WorkerConnection) -> None:
    program = await shell(link, worker, "cat")
    block = os.urandom(1024 * 1024)
    sent, received = hashlib.md5(), hashlib.md5()

    async def send() -> None:
        for _ in range(200):
            sent.update(block)
            await program.write(block)
        await program.write_eof()

    async def receive() -> None:
        while data := await program.read("stdout"):
            received.update(data)

    async with asyncio.timeout(150):
        await asyncio.gather(send(), receive())
        assert await program.exited == 0
    assert sent.hexdigest() == received.hexdigest()


async def test_who_does_not_read_stops_the_program_and_loses_nothing(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(link, worker, f"head -c {64 << 20} /dev/zero; echo -n end; echo done >&2")
    await asyncio.sleep(1.0)
    assert not program.exited.done()  # it waits for its reader
    out, err, status = await all_of(program)
    assert (len(out), out[-3:], err, status) == ((64 << 20) + 3, b"end", b"done\n", 0)


async def test_what_is_not_read_before_the_end_is_there_after_it(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(link, worker, f"head -c {200_000} /dev/zero")
    async with asyncio.timeout(10):
        assert await program.exited == 0
    await asyncio.sleep(0.2)
    out, _, _ = await all_of(program)
    assert len(out) == 200_000


async def test_writing_waits_while_the_program_does_not_read(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(link, worker, "sleep 60")
    writing = asyncio.create_task(program.write(b"x" * (32 << 20)))
    await asyncio.sleep(0.5)
    assert not writing.done()
    await program.kill()
    async with asyncio.timeout(10):
        await writing


async def test_a_program_that_closed_its_input_does_not_stop_the_writer(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(link, worker, "exec 0<&-; sleep 0.5; echo fine")
    out, _, status = await all_of(program, b"y" * (8 << 20))
    assert (out, status) == (b"fine\n", 0)


async def test_a_signal_reaches_the_whole_process_group(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(link, worker, "sleep 60 & echo started; wait")
    await read_until(program, b"started")
    worker.family()
    await program.signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await program.exited == -signal.SIGTERM
    await until(lambda: not worker.left(), "nothing is left")


async def test_interrupting_works_although_the_worker_was_started_with_nohup(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    code = "import time; print('on', flush=True); time.sleep(60)"
    program = await link.run([sys.executable, "-c", code], env=worker.env, cwd="/")
    await read_until(program, b"on")
    await program.signal(signal.SIGINT)
    _, err, status = await all_of(program, None)
    assert status in (130, -signal.SIGINT)
    assert b"KeyboardInterrupt" in err


async def test_control_c_in_a_terminal_interrupts_what_is_in_front(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await link.run(
        ["bash", "--norc", "-i"], env={**worker.env, "PS1": "> "}, cwd="/", terminal=Terminal()
    )
    await read_until(program, b"> ")
    await program.write(b"sleep 60; echo status $?\n")
    await read_until(program, b"sleep 60")
    await asyncio.sleep(0.3)
    await program.write(b"\x03")
    await read_until(program, b"> ")
    await program.write(b"echo still $((40+2))\n")
    await read_until(program, b"still 42")
    await program.write(b"exit 5\n")
    _, _, status = await all_of(program, None)
    assert status == 5


async def test_a_terminal_has_the_size_and_kind_that_was_asked_for_and_follows_changes(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    program = await shell(
        link,
        worker,
        "stty size; echo $TERM; tty >/dev/null && echo terminal; read line; stty size",
        terminal=Terminal("screen-256color", 111, 33),
    )
    heard = await read_until(program, b"terminal")
    assert b"33 111" in heard
    assert b"screen-256color" in heard
    program.resize(140, 50)
    await program.write(b"go on\n")
    assert b"50 140" in await read_until(program, b"50 140")
    assert (await all_of(program, None))[2] == 0


async def test_a_change_of_size_is_told_to_what_is_in_front(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    text = "trap 'stty size' WINCH; echo on; while :; do sleep 0.1; done"
    program = await shell(link, worker, text, terminal=Terminal())
    await read_until(program, b"on")
    program.resize(99, 44)
    await read_until(program, b"44 99")
    await program.kill()


async def test_the_end_of_input_reaches_a_terminal(worker: RunningWorker, link: WorkerConnection) -> None:
    program = await shell(link, worker, "cat; echo over", terminal=Terminal())
    await program.write(b"line\n")
    await read_until(program, b"line")
    await program.write_eof()
    await read_until(program, b"over")
    assert await program.exited == 0


async def test_kill_ends_the_children_too_also_those_that_hid(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    text = "setsid sleep 61 & (setsid sleep 62 &) ; nohup sleep 63 >/dev/null 2>&1 & echo on; sleep 64"
    program = await shell(link, worker, text)
    await read_until(program, b"on")
    await until(lambda: len(worker.family()) >= 6, "all have started")
    async with asyncio.timeout(10):
        await program.kill()
    assert program.exited.done()
    await until(lambda: not worker.left(), "all have ended")


async def test_many_at_once_do_not_mix(worker: RunningWorker, link: WorkerConnection) -> None:
    async def one(number: int) -> None:
        text = f"head -c 300000 /dev/zero | tr '\\0' {number % 10}; echo {number} >&2; exit {number}"
        out, err, status = await all_of(await shell(link, worker, text))
        assert out == str(number % 10).encode() * 300_000
        assert (err, status) == (f"{number}\n".encode(), number)

    await asyncio.gather(*(one(number) for number in range(40)))


@pytest.mark.parametrize(
    ("argv", "cwd", "said"),
    [
        (["no-such-program"], "/", "no-such-program was not found"),
        (["/no/such/program"], "/", "/no/such/program was not found"),
        (["/etc/passwd"], "/", "Permission denied"),
        (["true"], "/no/such/folder", "folder /no/such/folder does not exist"),
        (["true"], "relative", "folder relative does not exist"),
        (["true"], "/etc/passwd", "folder /etc/passwd does not exist"),
        (["true", "a\0b"], "/", "characters that cannot be passed on"),
        (["true", "\udc80"], "/", "characters that cannot be passed on"),
        (["true", "x" * (1 << 20)], "/", "too large"),
        (["true", *["x" * 1000] * 5000], "/", "too large"),
        ([], "/", "nothing to run"),
    ],
)
async def test_what_cannot_be_run_is_refused_with_a_sentence(
    worker: RunningWorker, link: WorkerConnection, argv: list[str], cwd: str, said: str
) -> None:
    with pytest.raises(InvalidOption) as refused:
        await link.run(argv, env=worker.env, cwd=cwd)
    assert said in refused.value.message
    assert refused.value.message.endswith(".")
    assert await all_of(await shell(link, worker, "echo well")) == (b"well\n", b"", 0)


async def test_a_file_that_is_no_program_is_refused(worker: RunningWorker, link: WorkerConnection) -> None:
    script = worker.home / "script"
    script.write_text("echo hello\n")
    script.chmod(0o700)
    with pytest.raises(InvalidOption, match="is not a program that can be run"):
        await link.run([str(script)], env=worker.env, cwd="/")


async def test_the_loss_of_the_link_hangs_up_what_is_not_kept(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    obedient = await shell(
        link, worker, f"trap 'echo up > {worker.home}/hup; exit' HUP; echo on; while :; do sleep 0.1; done"
    )
    stubborn = await shell(link, worker, "trap '' HUP TERM; echo on; while :; do sleep 0.1; done")
    for program in (obedient, stubborn):
        await read_until(program, b"on")
    family = {one.pid: one for one in worker.family()}
    await link.close()
    assert await obedient.exited == LINK_LOST
    assert await obedient.read("stdout") == b""
    await until(lambda: (worker.home / "hup").exists(), "it heard that it was hung up", 3)
    await until(lambda: not lives(family[stubborn.pid]), "the stubborn one was killed", 8)
    await until(lambda: not worker.left(), "nothing is left")


async def test_what_is_kept_goes_on_and_writes_into_a_file(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    text = "echo on; while [ ! -e go ]; do sleep 0.05; done; echo later; echo oops >&2; touch finished"
    program = await shell(link, worker, text, keep=True)
    await read_until(program, b"on")
    await link.close()
    await asyncio.sleep(0.3)
    (worker.home / "go").touch()
    await until(lambda: (worker.home / "finished").exists(), "it has finished")
    file = worker.home / f"gpu-run-{program.pid}.log"
    await until(lambda: file.exists() and file.read_text() == "later\noops\n", "its output is there")
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_kept_terminal_goes_on_too(worker: RunningWorker, link: WorkerConnection) -> None:
    text = "echo on; while [ ! -e go ]; do sleep 0.05; done; touch finished"
    program = await shell(link, worker, text, keep=True, terminal=Terminal())
    await read_until(program, b"on")
    await link.close()
    await asyncio.sleep(0.3)
    (worker.home / "go").touch()
    await until(lambda: (worker.home / "finished").exists(), "it has finished")


async def test_a_program_whose_end_nobody_awaits_is_forgotten(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    for _ in range(3):
        await all_of(await shell(link, worker, "true"))
    fds = len(os.listdir(f"/proc/{worker.pid}/fd"))
    for _ in range(20):
        await all_of(await shell(link, worker, "true"))
    await until(lambda: len(os.listdir(f"/proc/{worker.pid}/fd")) <= fds, "nothing stays open")
