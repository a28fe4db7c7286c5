"""``gpu run`` and ``gpu shell`` at a real terminal (a pseudo-terminal), as a person sits at it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from typing import Any

from tests.service.session.desk import PATIENCE_SECONDS, PROGRAMS, Desk


class Sitting:
    """A command with a terminal of its own."""

    def __init__(self, desk: Desk, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.size(30, 100)
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [str(PROGRAMS / "gpu"), *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=desk.env(TERM="xterm-256color", PS1="$ "),
            cwd=desk.home,
            preexec_fn=self._own_terminal,
            start_new_session=True,
        )
        self.heard = b""

    def _own_terminal(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    async def sees(self, pattern: str) -> str:
        os.set_blocking(self.master, False)
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not (found := re.search(pattern.encode(), self.heard)):
            try:
                self.heard += os.read(self.master, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.02)
            assert asyncio.get_running_loop().time() < deadline, f"no {pattern!r} in {self.heard!r}"
        self.heard = self.heard[found.end() :]
        return found.group().decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    async def end(self) -> int:
        code = await asyncio.to_thread(self.process.wait, PATIENCE_SECONDS)
        self.restored: Any = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.master)
        return code


async def test_a_shell_on_the_gpu_has_the_window_follows_its_size_and_passes_its_code_on(desk: Desk) -> None:
    sitting = Sitting(desk, "shell")
    sitting.type("stty size; echo gpu=$CUDA_VISIBLE_DEVICES\n")
    await sitting.sees("30 100\r\n")
    await sitting.sees("gpu=SIM-0")
    sitting.size(40, 120)
    sitting.process.send_signal(signal.SIGWINCH)
    await asyncio.sleep(0.5)
    sitting.type("stty size\n")
    await sitting.sees("40 120\r\n")
    sitting.type("exit 5\n")
    assert await sitting.end() == 5
    assert sitting.restored == sitting.modes, "the terminal was not left as it was found"


async def test_ctrl_c_in_a_shell_ends_what_runs_there_and_not_the_shell(desk: Desk) -> None:
    sitting = Sitting(desk, "shell")
    await sitting.sees(r"[$#] $")
    for _ in range(4):
        sitting.type("sleep 60\n")
        await sitting.sees("sleep 60")
        await asyncio.sleep(0.3)
        sitting.type("\x03")
        await sitting.sees(r"\^C")
    sitting.type("echo still $((40 + 2))\n")
    await sitting.sees("still 42")
    sitting.type("exit\n")
    assert await sitting.end() == 130 or sitting.process.returncode == 0


async def test_a_program_at_a_terminal_gets_one_and_ctrl_c_interrupts_it(desk: Desk) -> None:
    code = "import sys, time\nprint('tty', sys.stdout.isatty())\ntime.sleep(60)"
    sitting = Sitting(desk, "run", "python3", "-c", code)
    await sitting.sees("tty True")
    sitting.type("\x03")
    await sitting.sees("KeyboardInterrupt")
    assert await sitting.end() == 130
    assert sitting.restored == sitting.modes


async def test_a_program_that_does_not_answer_to_ctrl_c_is_asked_harder(desk: Desk) -> None:
    sitting = Sitting(desk, "run", "sh", "-c", "trap '' INT; echo deaf; while true; do sleep 0.1; done")
    await sitting.sees("deaf")
    sitting.type("\x03")
    await asyncio.sleep(0.4)
    sitting.type("\x03")
    await sitting.sees("asked to end")
    assert await sitting.end() == 143


async def test_one_live_line_tells_the_wait(desk: Desk) -> None:
    blocker = await desk.broker.ask("bob", gpus=2)
    sitting = Sitting(desk, "run", "echo", "done")
    await sitting.sees("next in line|All GPUs are in use")
    await desk.broker.finish(blocker.id)
    await sitting.sees("done")
    assert await sitting.end() == 0


async def test_top_paints_and_ends_with_ctrl_c(desk: Desk) -> None:
    assert (await desk.gpu("on")).code == 0
    sitting = Sitting(desk, "top")
    await sitting.sees("simulated GPU")
    (lease,) = desk.broker.leases
    await desk.broker.sample(lease, 71.0, 3_100_000_000)
    await sitting.sees("71 %")
    sitting.type("\x03")
    assert await sitting.end() == 0
