"""A plain Jupyter server and a stock JupyterHub, to stand beside ours in the same run."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.person import Person

WITHOUT_OURS = "--ServerApp.jpserver_extensions={'gpusession.server': False}"
"""Our extension's package switches it on for every server of its prefix."""
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class PlainJupyter:
    """``jupyter server`` as it comes: no hub, no proxy, stock provisioner."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        self.token, port = secrets.token_hex(16), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{port}/"
        command = [sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", f"--port={port}"]
        command += [f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.folder}"]
        command += [WITHOUT_OURS]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("GPUHUB", "JUPYTER_DEFAULT"))}
        self.process = subprocess.Popen(command, env=env, **QUIET)
        wait_for(f"{self.url}api/status?token={self.token}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(30)

    def person(self) -> Person:
        person = Person(self.url, "plain", self.token)
        person.server_url = self.url
        return person


class StockHub:
    """JupyterHub with its own simple spawner and the same proxy."""

    def __init__(self, folder: Path, proxy_command: list[str]) -> None:
        self.folder, self.proxy_command = folder, proxy_command

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.token, port, api, hub = secrets.token_hex(16), free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}/"
        config = self.folder / "config.py"
        config.write_text(
            f"c.JupyterHub.bind_url = {self.url!r}\n"
            f"c.JupyterHub.hub_port = {hub}\n"
            f"c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{api}'\n"
            f"c.ConfigurableHTTPProxy.command = {self.proxy_command!r}\n"
            "c.JupyterHub.authenticator_class = 'dummy'\nc.Authenticator.allow_all = True\n"
            f"c.JupyterHub.spawner_class = 'simple'\nc.Spawner.args = ['--allow-root', {WITHOUT_OURS!r}]\n"
            "c.Spawner.http_timeout = 120\n"
            f"c.SimpleLocalProcessSpawner.home_dir_template = '{self.folder}/{{username}}'\n"
            f"c.JupyterHub.services = [{{'name': 'bench', 'admin': True, 'api_token': {self.token!r}}}]\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)], cwd=self.folder, **QUIET
        )
        wait_for(f"{self.url}hub/api/")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(60)


def wait_for(url: str, patience_seconds: float = 60) -> None:
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code < 400:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"no answer from {url.partition('?')[0]} within {patience_seconds:.0f} s")
