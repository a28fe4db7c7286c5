"""Stands at the head of one unit: starts its main process as the right account, and inherits its orphans.

Run by path with ``python -I -S keeper.py UNIT`` by the launcher, with an order (JSON) on standard
input. It is a process of its own, and nothing but the standard library, for three promises:

* As the unit's *subreaper* it becomes the parent of every process whose own parent has gone, so
  that double forks, new sessions and scrubbed environments hide nothing: the unit is its
  descendants, and it has ended when the keeper has none left. Then it ends too.
* It survives the launcher, and writes down the main process and its exit status, so that a
  restarted launcher finds both.
* It runs under the launcher's account: in multi-user mode nothing in the unit can signal it.

It never kills anything; that is the launcher's decision.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_CHILD_SUBREAPER = 36
CANNOT_START = 126


def start_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def write(folder: str, name: str, content: dict[str, Any]) -> None:
    aside = os.path.join(folder, f".{name}.new")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, os.path.join(folder, name))


def become(spec: dict[str, Any]) -> NoReturn:
    """Turn this (forked) process into the unit's main process."""
    try:
        os.setsid()
        # An ignored signal and a blocked mask are inherited through exec: under `nohup … &`
        # Ctrl-C would do nothing in every process of the unit.
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if os.geteuid() == 0:
            if spec["groups_of"]:
                os.initgroups(spec["groups_of"], spec["gid"])
            else:
                os.setgroups([spec["gid"]])
            os.setresgid(spec["gid"], spec["gid"], spec["gid"])
            os.setresuid(spec["uid"], spec["uid"], spec["uid"])
        if os.getresuid() != (spec["uid"],) * 3 or os.getresgid() != (spec["gid"],) * 3:
            raise PermissionError("the account could not be taken on")
        os.umask(0o077)
        # As the account, so that a folder that it may not enter is not entered.
        for folder in (spec["home"], spec["folder"], "/"):
            with contextlib.suppress(OSError):
                os.chdir(folder)
                break
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except BaseException as error:  # noqa: BLE001 - whatever it was, this process must not go on
        with contextlib.suppress(OSError):
            os.write(2, f"cannot start {spec['argv'][0]}: {error}\n".encode())
    os._exit(CANNOT_START)


def main() -> int:
    spec = json.loads(sys.stdin.buffer.read())
    state = spec["state"]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print("cannot become a subreaper", file=sys.stderr)
        return 1
    child = os.fork()
    if child == 0:
        become(spec)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # Only root may: memory pressure should meet the work, not its keeper.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-900")
    me = os.getpid()
    write(
        state,
        "keeper.json",
        {"keeper": [me, start_of(me)], "main": [child, start_of(child)], "started_at": time.time()},
    )
    with contextlib.suppress(OSError):  # the launcher may have gone meanwhile; its successor reads the file
        os.write(1, b"started\n")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return 0
        if pid == child:
            with contextlib.suppress(OSError):  # a full disk must not leave orphans without their keeper
                write(state, "exit.json", {"status": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    sys.exit(main())
