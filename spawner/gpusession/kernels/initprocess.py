"""The small process that stands between us and each kernel, and cleans up after it.

Exists because a kernel's children (data loaders, servers started from a cell) hold memory and
GPUs, and nobody else can find them all: this process is the subreaper of the whole family, so
that even what daemonised itself stays below it. Promises:

* when the kernel ends, however it ends, every process that it started ends too;
* when our side dies (its end of the control socket closes; this works whatever thread started
  us, unlike a parent-death signal), the kernel is told to stop (SIGTERM: it saves), and is killed
  `ORPHAN_SECONDS` later; when this process dies, the kernel's parent-death signal kills it;
* the kernel runs in a session of its own, with every signal's disposition and mask reset: what
  our side ignores (under ``nohup``, say) is not ignored by a kernel.

A script that imports the standard library only and little of it: it starts with each kernel.
Run as ``python -I -S initprocess.py FD TERMINAL COMMAND …``. Over FD it says ``pid N``,
``failed ERRNO``, ``exited STATUS``, and takes ``signal N`` and ``kill``, one a line.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import termios
import time

ORPHAN_SECONDS = 20.0
"""How long a kernel may save after our side has died. Below the fence of a lost worker (60 s)."""

SWEEP_SECONDS = 10.0
"""How long to go on killing what a kernel has left behind; beyond it is what we may not kill."""

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start(command: list[str], terminal: bool) -> int:
    """Start the kernel; its pid. Raises OSError when it cannot be executed."""
    read, write = os.pipe()
    us = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            prctl(_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != us:
                os._exit(1)
            for number in signal.valid_signals():
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvp(command[0], command)
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(write)
    with open(read, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid


def status_of(raw: int) -> int:
    return -os.WTERMSIG(raw) if os.WIFSIGNALED(raw) else os.WEXITSTATUS(raw)


def descendants(root: int) -> list[int]:
    """Return the processes below ``root``, from the process table."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            found.append(pid)
            queue.append(pid)
    return found


class Init:
    """The loop: one kernel, one control socket, signals through a pipe."""

    def __init__(self, control: socket.socket, pid: int, wakeup: int) -> None:
        self._control, self._pid, self._wakeup = control, pid, wakeup
        self._kill_at: float | None = None
        self._heard = b""
        self._listening = True

    def run(self) -> None:
        while (status := self._reap()) is None:
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal(signal.SIGKILL)
                self._kill_at = time.monotonic() + 1.0
            left = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            wanted = [self._wakeup] + ([self._control] if self._listening else [])
            ready, _, _ = select.select(wanted, [], [], left)
            if self._wakeup in ready:
                for number in os.read(self._wakeup, 4096):
                    if number in _FORWARDED:
                        self._signal(number)
            if self._control in ready:
                self._take()
        self._sweep()
        self._say(f"exited {status}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(line.encode() + b"\n")

    def _take(self) -> None:
        try:
            data = self._control.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._listening = False
            if self._kill_at is None:
                self._signal(signal.SIGCONT)
                self._signal(signal.SIGTERM)
                self._kill_at = time.monotonic() + ORPHAN_SECONDS
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"kill":
                self._kill_at = 0.0
            elif word == b"signal":
                self._signal(int(number))

    def _signal(self, number: int) -> None:
        # The kernel is our child and not waited for yet: its number cannot be somebody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _reap(self) -> int | None:
        """Take up those who ended; the kernel's status once it is among them."""
        status = None
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if pid == self._pid:
                status = status_of(raw)

    def _sweep(self) -> None:
        """Kill all that is left of the family, also what forks meanwhile."""
        until = time.monotonic() + SWEEP_SECONDS
        while (left := descendants(os.getpid())) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.005)


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    prctl(_SET_CHILD_SUBREAPER, 1)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        pid = start(arguments[2:], arguments[1] == "1")
    except OSError as error:
        control.sendall(f"failed {error.errno or errno.EINVAL}\n".encode())
        return 127
    for stream in (0, 1, 2):
        # A pipe or terminal that the kernel has closed must not stay open through us.
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    control.sendall(f"pid {pid}\n".encode())
    Init(control, pid, read).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
