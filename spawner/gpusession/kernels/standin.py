"""A process that stands for a kernel which the server runs.

Exists for programs that start kernels themselves (nbclient, papermill, a console, VS Code's own
Jupyter): the kernel spec "… (GPU)" names this as its command, and they see an ordinary kernel
process with an ordinary connection file. The server binds that address, and can move what is
behind it. Promises: it ends when the kernel ends, with its status; when it ends, the kernel ends;
an interrupt is passed on; without a server to ask, the kernel runs right here.
Run as ``python -m gpusession.kernels.standin -f CONNECTION_FILE [-- COMMAND …]``. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from gpusession.kernels import argv as commandline
from gpusession.kernels.environment import KERNELS_HERE

SOCKET = "GPUHUB_SOCKET"
PATH = "/gpuhub/api/v1/hosted"
CONNECT_SECONDS = 10.0
PARENT_SECONDS = 1.0


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(self._path)
        self.sock.settimeout(None)  # a kernel lives long


def wrap(launch: dict[str, Any]) -> dict[str, Any]:
    """Let the server host what a provisioner outside of it would start.

    Unchanged where there is none, and where a cell or a program on the worker starts it.
    """
    command, env = launch["cmd"], launch["env"]
    resolved, ours = commandline.resolve(command)
    if not env.get(SOCKET) or env.get(KERNELS_HERE) or not ours or commandline.STAND_IN in command:
        return launch
    file = command[command.index("-f") + 1] if "-f" in command[:-1] else None
    if file is None:
        return launch
    stand_in = [sys.executable, "-m", commandline.STAND_IN, "-f", file, "--", *resolved]
    return {**launch, "cmd": stand_in}


def run(arguments: list[str], env: Mapping[str, str]) -> int:
    """Return the exit status."""
    file = arguments[arguments.index("-f") + 1]
    gpu = "--" not in arguments
    command = (
        [sys.executable, "-m", commandline.OURS, "-f", file]
        if gpu
        else arguments[arguments.index("--") + 1 :]
    )
    path = env.get(SOCKET, "")
    order = {
        "argv": [part.replace(file, "{connection_file}") for part in command],
        "env": dict(env),
        "cwd": os.getcwd(),
        "connection": _read(file),
        "gpu": gpu,
    }
    try:
        connection = _OverUnix(path)
        connection.request("POST", PATH, json.dumps(order), {"Content-Type": "application/json"})
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException):
        print("No server of the hub is near: this kernel runs here, without a GPU.", file=sys.stderr)
        os.execvp(command[0], command)
    if answer.status != 200:
        print(_reason(answer.read()), file=sys.stderr)
        return 1
    return _follow(answer, path)


def _follow(answer: http.client.HTTPResponse, path: str) -> int:
    kernel_id = ""

    def interrupt(*_: Any) -> None:
        threading.Thread(target=_post, args=(path, f"{PATH}/{kernel_id}/interrupt"), daemon=True).start()

    signal.signal(signal.SIGINT, interrupt)
    if os.environ.get("JPY_PARENT_PID"):
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        while line := answer.readline():
            event = json.loads(line)
            kernel_id = event.get("kernel", kernel_id)
            if "exited" in event:
                status = int(event["exited"])
                return status if status >= 0 else 128 - status
    except (OSError, http.client.HTTPException, ValueError):
        pass  # the server is gone, and with it the kernel
    return 1


def _end_with_parent(parent: int) -> None:
    """A program that was killed shuts no kernel down; Jupyter's own kernels end with it in the same way."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def _post(path: str, target: str) -> None:
    connection = _OverUnix(path)
    connection.request("POST", target, "{}", {"Content-Type": "application/json"})
    connection.getresponse().read()
    connection.close()


def _read(file: str) -> dict[str, Any]:
    with open(file, encoding="utf-8") as stream:
        info: dict[str, Any] = json.load(stream)
    return info


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return "The server did not start the kernel."


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], os.environ))
