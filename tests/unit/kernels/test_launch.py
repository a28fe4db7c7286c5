"""Processes with nothing left behind: sessions, signals, descendants, orphans, files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from gpusession.kernels.launch import KernelProcess, lay_out, start_process

FAMILY = """
sleep 1000 & echo $! >> {pids}
setsid sleep 1000 & echo $! >> {pids}
(setsid nohup sleep 1000 >/dev/null 2>&1 & echo $! >> {pids})
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(check: Callable[[], bool], patience_seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + patience_seconds
    for _ in iter(check, True):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


async def start(*argv: str, cwd: str = "/", **more: object) -> KernelProcess:
    return await start_process(argv, env=dict(os.environ), cwd=cwd, **more)  # type: ignore[arg-type]


async def family(tmp_path: Path, end: str) -> tuple[KernelProcess, list[int]]:
    file = tmp_path / "pids"
    process = await start("sh", "-c", FAMILY.format(pids=file) + end)
    await until(lambda: file.exists() and len(file.read_text().split()) == 3)
    pids = [process.pid, *map(int, file.read_text().split())]
    assert all(alive(pid) for pid in pids[1:])
    return process, pids


async def test_a_kill_takes_the_whole_family_with_it_also_who_left_the_session(tmp_path: Path) -> None:
    process, pids = await family(tmp_path, "sleep 1000")
    await process.kill()
    assert not [pid for pid in pids if alive(pid)]
    assert process.exited.result() == -signal.SIGKILL
    await process.kill()


async def test_what_a_process_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    process, pids = await family(tmp_path, "sleep 0.3; exit 7")
    assert await asyncio.wait_for(process.exited, 10) == 7
    assert not [pid for pid in pids if alive(pid)]
    await process.kill()


async def test_the_end_is_known_with_its_signal() -> None:
    process = await start("sh", "-c", "kill -SEGV $$")
    assert await asyncio.wait_for(process.exited, 10) == -signal.SIGSEGV
    await process.kill()


async def test_it_leads_a_session_of_its_own_without_a_terminal() -> None:
    process = await start("sleep", "1000")
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    await process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE])
async def test_what_we_ignore_or_block_is_neither_ignored_nor_blocked_by_it(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        process = await start(sys.executable, "-c", "import time; print(1, flush=True); time.sleep(1000)")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(number, before)
    fields = {}
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():  # noqa: ASYNC240
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    bit = 1 << (number - 1)
    assert not int(fields["SigBlk"], 16) & bit
    if number != signal.SIGPIPE:  # Python itself ignores that one
        assert not int(fields["SigIgn"], 16) & bit
    await process.kill()


async def test_it_is_stopped_woken_and_killed_while_stopped() -> None:
    process = await start("sleep", "1000")

    def state() -> str:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    for number, shown in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S"), (signal.SIGSTOP, "T")):
        await process.signal(number)
        await until(lambda expected=shown: state() == expected)  # type: ignore[misc]
    await process.kill()
    assert process.exited.result() == -signal.SIGKILL


async def test_a_signal_reaches_its_group() -> None:
    process = await start("sh", "-c", "sleep 1000; exit 5")
    await asyncio.sleep(0.2)
    await process.signal(signal.SIGINT)
    assert await asyncio.wait_for(process.exited, 10) == -signal.SIGINT
    await process.kill()
    await process.signal(signal.SIGINT)  # it has ended: fine


async def test_a_program_or_folder_that_is_not_there_is_said_so() -> None:
    with pytest.raises(FileNotFoundError):
        await start("no-such-program")
    with pytest.raises(FileNotFoundError):
        await start("true", cwd="/no/such/folder")
    with pytest.raises(PermissionError):
        await start("/etc/passwd")


async def test_output_goes_to_the_log_which_others_cannot_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = await start("sh", "-c", "echo out; echo err >&2", log=log)
    await process.exited
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    await process.kill()


async def test_it_gets_files_and_a_terminal_of_its_own() -> None:
    ours, theirs = os.openpty()
    process = await start("sh", "-c", "tty; stty size", files=(theirs, theirs, theirs), terminal=True)
    os.close(theirs)
    assert await asyncio.wait_for(process.exited, 10) == 0
    text = os.read(ours, 1000).decode()
    assert "/dev/pts/" in text
    os.close(ours)
    await process.kill()


async def test_no_descriptor_of_ours_reaches_it() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    process = await start(sys.executable, "-c", "import os; os._exit(len(os.listdir('/proc/self/fd')))")
    assert await asyncio.wait_for(process.exited, 10) == 4  # three, and the listing's own
    os.close(reading)
    os.close(writing)
    await process.kill()


async def test_if_the_process_between_is_killed_the_kernel_dies_with_it() -> None:
    process = await start("sleep", "1000")
    os.kill(process._popen.pid, signal.SIGKILL)
    assert await asyncio.wait_for(process.exited, 10) == -signal.SIGKILL
    await until(lambda: not alive(process.pid))
    await process.kill()


ORPHANS = """
import asyncio, os, sys, threading
from gpusession.kernels.launch import start_process
async def main():
    process = await start_process(
        ["sh", "-c", {script!r}], env=dict(os.environ), cwd="/"
    )
    print(process.pid, flush=True)
    await asyncio.sleep(1000)
{run}
"""


@pytest.mark.parametrize(
    "run",
    ["asyncio.run(main())", "t = threading.Thread(target=lambda: asyncio.run(main())); t.start(); t.join()"],
)
async def test_it_is_told_to_stop_when_we_are_killed(tmp_path: Path, run: str) -> None:
    mark = tmp_path / "saved"
    ready = tmp_path / "ready"
    script = f"trap 'echo saved > {mark}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    program = ORPHANS.format(script=script, run=run)
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, start_new_session=True
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    await until(ready.exists)
    starter.kill()
    await starter.communicate()
    await until(lambda: not alive(pid))
    assert mark.read_text() == "saved\n"


async def test_the_end_of_the_thread_that_started_it_is_not_its_end() -> None:
    program = textwrap.dedent(
        """
        import asyncio, os, threading, time
        from gpusession.kernels.launch import start_process
        kept = []
        async def main():
            kept.append(await start_process(["sleep", "1000"], env=dict(os.environ), cwd="/"))
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start(); thread.join(); time.sleep(0.5)
        os.kill(kept[0].pid, 0)
        print("alive", flush=True)
        """
    )
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.stdout == "alive\n", found.stderr


def test_the_kernels_folder_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    files = lay_out(folder, b"0123abcd", "python3")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(files.connection_file.stat().st_mode) == 0o600
    info = json.loads(files.connection_file.read_text())
    assert (info["transport"], info["key"], info["kernel_name"]) == ("ipc", "0123abcd", "python3")
    assert info["signature_scheme"] == "hmac-sha256"
    assert files.channels == {
        name: f"ipc://{folder}/k-{info[f'{name}_port']}"
        for name in ("shell", "iopub", "stdin", "hb", "control")
    }


def test_a_folder_that_is_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="107 bytes"):
        lay_out(tmp_path / ("d" * 100), b"", "python3")
