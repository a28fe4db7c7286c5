"""Programs that run on the node, in its namespaces."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.sandbox import Sandbox
from tests.cluster.waiting import until

STOP_SECONDS = 10.0
ROOT = Path(__file__).parents[2]

# Its own process writes the number, then becomes the program: so the file never names another process.
BECOME = 'echo $$ >"/run/$0.pid"; log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null'


class NodeProcesses:
    """`tests.cluster.processes.Processes` on a node.

    A program's parent is the node's first process: it lives as long as the node does, not as long as
    whoever started it.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def start(self, name: str, command: list[str]) -> None:
        number = self._file(name)
        number.unlink(missing_ok=True)
        log = str(self.log(name))
        self._sandbox.run(
            "setsid", "--fork", "env", f"--chdir={ROOT}", "sh", "-c", BECOME, name, log, *command
        )
        until(lambda: number.exists() and number.read_text().strip(), f"{name}'s start", STOP_SECONDS)

    def kill(self, name: str) -> None:
        if self.alive(name):
            self._sandbox.run("kill", "-KILL", self._number(name))
            until(lambda: not self.alive(name), f"{name}'s end", STOP_SECONDS)

    def pause(self, name: str) -> None:
        """Let a program hang, until `resume`."""
        self._sandbox.run("kill", "-STOP", self._number(name))

    def resume(self, name: str) -> None:
        self._sandbox.run("kill", "-CONT", self._number(name))

    def alive(self, name: str) -> bool:
        status = self._sandbox.root / "proc" / self._number(name) / "stat"
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            return False

    def log(self, name: str) -> Path:
        return self._sandbox.folder / f"log/{name}.log"

    def _file(self, name: str) -> Path:
        return self._sandbox.root / f"run/{name}.pid"

    def _number(self, name: str) -> str:
        try:
            return self._file(name).read_text().strip()
        except FileNotFoundError:
            return "none"
