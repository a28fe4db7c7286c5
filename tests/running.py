"""A real `gpuhub up` in a process of its own: hub, proxy, broker, launcher, servers, workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import yaml

from gpuhub.programs import find_proxy

START_SECONDS = 180.0
STOP_SECONDS = 240.0
CHILDREN = {
    "hub": "jupyterhub -f",
    "broker": "gpuhub.api",
    "launcher": "gpuspawner.launcher --settings",
    "proxy": "configurable-http-proxy",
    "culler": "jupyterhub_idle_culler",
}


class RunningHub:
    """``gpuhub up`` with the data folder ``folder/data``; a context manager, and restartable.

    ``policy`` becomes the policy file. Further options are given as they stand on the command line.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        gpus: str = "sim:2",
        policy: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.data = folder, folder / "data"
        self.log_file = folder / "up.log"
        self.ready_file = folder / "ready.json"
        self._env = env or {}
        self._options = [*options, "--gpus", gpus]
        if policy is not None:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "policy.yaml"
            file.write_text(yaml.safe_dump(policy))
            self._options += ["--policy", str(file)]
        if "--port" not in options:
            self._options += ["--port", "0"]
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- life

    def start(self) -> Self:
        """Start and wait until everything answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "gpuhub.cli", "up", "--data", str(self.data)]
        command += ["--ready-file", str(self.ready_file), *self._options]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self._env
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.ready_file.exists():
                self.ready = json.loads(self.ready_file.read_text())
                return self
            if self.process.poll() is not None:
                raise AssertionError(f"gpuhub up ended with {self.process.returncode}:\n{self.log()}")
            time.sleep(0.1)
        log_text = self.log()
        self.stop()
        raise AssertionError(f"gpuhub up was not ready after {START_SECONDS:.0f} s:\n{log_text}")

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Stop as Ctrl-C does (everything is saved); returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"gpuhub up did not stop:\n{self.log()}") from None
        return self.process.returncode

    def kill(self) -> None:
        """kill -9 of `gpuhub up`; returns when its children are gone too."""
        assert self.process is not None
        children = [process for process in self._children() if process.is_running()]
        self.process.kill()
        self.process.wait(10)
        _, alive = psutil.wait_procs(children, 15)
        assert not alive, alive
        with contextlib.suppress(FileNotFoundError):
            self.ready_file.unlink()

    def child(self, name: str) -> psutil.Process:
        """The process of one part: hub, broker, launcher, proxy, culler."""
        for process in self._children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if CHILDREN[name] in " ".join(process.cmdline()):
                    return process
        raise AssertionError(f"no {name} runs:\n{self.log()}")

    def kill_child(self, name: str) -> int:
        """kill -9 of one part; returns the pid that it had."""
        process = self.child(name)
        process.kill()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(10)
        return int(process.pid)

    def _children(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def wait_until_ready(self) -> None:
        """Wait until the hub answers through the proxy (again) and knows its people."""
        headers = {"Authorization": f"token {self.admin_token}"}
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}hub/api/users", headers=headers, timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the hub did not come again:\n{self.log()}")

    # --- what it says

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def admin_token(self) -> str:
        return str(self.ready["admin_token"])

    @property
    def users(self) -> list[dict[str, Any]]:
        return list(self.ready["users"])

    @property
    def password(self) -> str:
        """The shared password."""
        return str(next(user["password"] for user in self.users if not user["admin"]))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def proxy_command(self) -> list[str]:
        return find_proxy()

    def log(self) -> str:
        """What it said on the terminal."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
