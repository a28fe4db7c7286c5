"""``gpu run`` and ``gpu shell``, on the terminal's side: bytes, signals, sizes, exit code.

Exists to make a program on the GPU feel like one that runs here. Promises: its output arrives
byte for byte and in order; Ctrl-C reaches it, and a program that does not answer is asked again,
harder (TERM, then KILL); the terminal is left as it was found; the exit code is the program's own.

Three threads: this one writes what comes, one reads the keyboard (it waits for credit, so that
neither side piles up input), one passes signals on even while this one waits for a slow reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpusession.shell import codes, frames
from gpusession.shell.screen import Screen

AGAIN_SECONDS = 5.0
"""Ctrl-C within this time of the last one, with no answer from the program in between, is a stronger one."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
INTERRUPT_KEY = b"\x03"


@dataclass
class Order:
    """What to run; goes into the first frame."""

    argv: list[str]
    pool: str | None = None
    gpus: int = 1
    keep: bool = False
    terminal: bool = False
    insist: bool = True
    """A second Ctrl-C is stronger. Not for a shell: there each one is meant for what runs in it."""


@dataclass
class Interrupts:
    """How hard the next Ctrl-C is."""

    clock: Callable[[], float] = time.monotonic
    count: int = 0
    last: float = field(default=float("-inf"))

    def answered(self) -> None:
        """The program said something: it is alive and may be interrupted gently again."""
        self.count = 0

    def next(self) -> int:
        """Return the signal for a Ctrl-C that comes now: INT, then TERM, then KILL."""
        now = self.clock()
        self.count = self.count + 1 if now - self.last <= AGAIN_SECONDS else 1
        self.last = now
        return {1: signal.SIGINT, 2: signal.SIGTERM}.get(self.count, signal.SIGKILL)


class Run:
    """One command over an upgraded connection; `run` returns the exit code."""

    def __init__(self, sock: socket.socket, order: Order, screen: Screen, env: Mapping[str, str]) -> None:
        self._sock, self._order, self._screen, self._env = sock, order, screen, env
        self._turn = threading.Lock()
        self._credit = frames.WINDOW_BYTES
        self._more = threading.Condition()
        self._started = False
        self._cancelled = False
        self._over = False
        self._interrupts = Interrupts()
        self._wake, self._woken = os.pipe()
        self._saved: list[Any] | None = None
        self.outcome: dict[str, Any] = {}
        """For ``--json``: the lease, and the error that ended it."""

    def run(self) -> int:
        self._send(frames.BEGIN, self._begin())
        handlers = self._catch_signals()
        try:
            return self._follow()
        finally:
            self._over = True
            self._cook()
            signal.set_wakeup_fd(-1)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._screen.clear()
            self._sock.close()

    def _begin(self) -> dict[str, Any]:
        order = self._order
        terminal = {"kind": self._env.get("TERM", "xterm-256color"), **_size()} if order.terminal else None
        # Names that are not text cannot be carried; a program that needs them is not known.
        env = {name: value for name, value in self._env.items() if _is_text(name) and _is_text(value)}
        return {
            "argv": order.argv,
            "env": env,
            "cwd": os.getcwd(),
            "terminal": terminal,
            "pool": order.pool,
            "gpus": order.gpus,
            "keep": order.keep,
        }

    # --- from the server

    def _follow(self) -> int:
        while True:
            try:
                kind, body = self._receive()
            except (OSError, frames.BrokenFrame):
                return self._cut_off()
            if kind in (frames.STDOUT, frames.STDERR):
                if not (self._order.terminal and body.strip() in (b"^C", b"")):
                    # A terminal echoes the key; that alone is no answer.
                    self._answered()
                self._write(1 if kind == frames.STDOUT else 2, body)
            elif kind == frames.CREDIT:
                with self._more:
                    self._credit += int(frames.read_json(body)["bytes"])
                    self._more.notify_all()
            elif kind == frames.WAITING:
                self._screen.live(f"gpu: {frames.read_json(body)['message']}  Ctrl-C leaves the line.")
            elif kind == frames.STARTED:
                self.outcome["lease"] = frames.read_json(body)["lease"]
                self._begins()
            elif kind == frames.NOTICE:
                self._note(str(frames.read_json(body)["message"]))
            elif kind == frames.EXIT:
                return int(frames.read_json(body)["status"])
            elif kind == frames.FAILED:
                return self._failed(frames.read_json(body))

    def _answered(self) -> None:
        # Without a terminal of its own a program's output is no answer to a signal: it may just go on.
        if self._order.terminal:
            self._interrupts.answered()

    def _begins(self) -> None:
        self._screen.clear()
        self._started = True
        if self._order.terminal:
            self._raw()
        if self._cancelled:
            self._interrupt()
        threading.Thread(target=self._read_keys, name="keys", daemon=True).start()

    def _failed(self, error: dict[str, Any]) -> int:
        self._cook()
        self.outcome["error"] = {name: error.get(name) for name in ("code", "message", "hint", "details")}
        if self._cancelled and not error["started"]:
            self._screen.note("No longer in line; nothing ran.")
            return codes.INTERRUPTED
        if not self._screen.as_json:
            self._screen.error(str(error["message"]), str(error.get("hint") or ""))
        if error["started"]:
            return codes.LOST
        return int((error.get("details") or {}).get("exit_status", codes.RUN_FAILED))

    def _cut_off(self) -> int:
        self._cook()
        if self._cancelled and not self._started:
            return codes.INTERRUPTED
        text = "The connection to your server was cut; it may be stopping."
        self.outcome["error"] = {"code": "unavailable", "message": text, "hint": "", "details": {}}
        if not self._screen.as_json:
            self._screen.error(text)
        return codes.LOST if self._started else codes.RUN_FAILED

    def _note(self, text: str) -> None:
        if self._saved is None:
            self._screen.note(text)
        else:
            # A raw terminal needs its own line ends.
            self._write(2, f"\r\n\x1b[33mgpu: {text}\x1b[0m\r\n".encode())

    def _write(self, fd: int, body: bytes) -> None:
        view = memoryview(body)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
            self._write(fd, bytes(view))
        except BrokenPipeError:
            # Who reads us has gone: the server sees this connection close and hangs the program up.
            self._sock.close()
            raise

    def _receive(self) -> tuple[int, bytes]:
        kind, length = frames.head(self._exactly(frames.HEAD.size))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            data = self._sock.recv(count - len(found))
            if not data:
                raise ConnectionError("closed")
            found += data
        return bytes(found)

    # --- to the server

    def _send(self, kind: int, body: bytes | dict[str, Any] = b"") -> None:
        with self._turn:
            self._sock.sendall(frames.pack(kind, body))

    def _read_keys(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                if self._background():
                    time.sleep(0.2)  # a background job's read would stop it
                    continue
                try:
                    data = os.read(0, frames.CHUNK_BYTES)
                except OSError:  # closed, or the terminal is gone
                    data = b""
                if not data:
                    self._send(frames.INPUT_END)
                    return
                if self._saved is not None and self._order.insist and INTERRUPT_KEY in data:
                    self._interrupt(by_key=True)
                with self._more:
                    while self._credit < len(data) and not self._over:
                        self._more.wait(1.0)
                    self._credit -= len(data)
                self._send(frames.INPUT, data)

    def _background(self) -> bool:
        try:
            return os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp()
        except OSError:
            return False

    def _interrupt(self, *, by_key: bool = False) -> None:
        number = self._interrupts.next()
        if number == signal.SIGKILL:
            self._send(frames.KILL)
        elif not (by_key and number == signal.SIGINT):
            self._send(frames.SIGNAL, {"number": int(number)})
        if number != signal.SIGINT:
            text = "asked to end" if number == signal.SIGTERM else "killed"
            self._note(f"The program does not answer to Ctrl-C: {text}.")

    def _pass_signals_on(self) -> None:
        with contextlib.suppress(OSError):
            while number := os.read(self._wake, 1):
                self._take_signal(number[0])

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._order.terminal and self._started:
                self._send(frames.RESIZE, _size())
        elif not self._started:
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                self._cancelled = True
                self._send(frames.SIGNAL, {"number": number})
        elif number == signal.SIGINT:
            self._interrupt()
        elif number in PASSED_ON:
            self._send(frames.SIGNAL, {"number": number})

    def _catch_signals(self) -> dict[int, Any]:
        os.set_blocking(self._woken, False)
        numbers = [*PASSED_ON, signal.SIGWINCH]
        # Python's handler does nothing; the wake-up pipe carries the number to the thread that sends.
        handlers: dict[int, Any] = {
            number: signal.signal(number, lambda _number, _frame: None)
            for number in numbers
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup's choice stays
        }
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        threading.Thread(target=self._pass_signals_on, name="signals", daemon=True).start()
        return handlers

    # --- the terminal

    def _raw(self) -> None:
        with contextlib.suppress(termios.error):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)

    def _cook(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _size() -> dict[str, int]:
    try:
        rows, columns = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)))[:2]
    except OSError:
        rows, columns = 0, 0
    return {"columns": columns or 80, "rows": rows or 24}


def on_terminal() -> bool:
    """Whether a person sits on all three ends: then the program gets a terminal too."""
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
