"""Where a cluster's programs run: each under a name, with a log, and restartable.

`Processes` is the port that control plane and node components are started through. `LocalProcesses` runs them
as plain children of this process, ended with it (the bare control plane); `tests.cluster.sandbox` inside a
node's namespaces.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

from tests.cluster.waiting import ClusterError, tail

STOP_SECONDS = 10.0


class Processes(Protocol):
    """Starts programs and ends them."""

    def start(self, name: str, command: list[str]) -> None:
        """Start a program; its output goes to the end of its log."""
        ...

    def kill(self, name: str) -> None:
        """End a program at once; returns when it is gone."""
        ...

    def alive(self, name: str) -> bool: ...

    def log(self, name: str) -> Path: ...


def require_alive(processes: Processes, name: str) -> None:
    """Raise ClusterError with the log's end when a program that should run does not."""
    if not processes.alive(name):
        raise ClusterError(f"{name} ended\n{tail(processes.log(name))}")


# Put before a command: the kernel ends it when the process that started it is gone.
DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


class LocalProcesses:
    """Plain children; needs no root."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str]) -> None:
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*DIE_WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)

    def alive(self, name: str) -> bool:
        return name in self._running and self._running[name].poll() is None

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def stop(self) -> None:
        """End all, the last that was started first: whatever others need, goes last."""
        for name in reversed(list(self._running)):
            self.kill(name)


def running(pid: int) -> bool:
    """Whether a process of this number exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def environment() -> dict[str, str]:
    """Return what the programs get: the system's folders as PATH, no proxy or Kubernetes settings of ours."""
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": system,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
