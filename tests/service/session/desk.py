"""A real Jupyter server with the extension, an in-memory broker over HTTP, and real workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from gpulease.models import Lease, Link
from gpulease.testing import MemoryBroker
from gpusession.worker.link import make_key

TOKEN = "the-broker-knows-this"
SIGN_IN = "the-browser-knows-this"
PATIENCE_SECONDS = 40.0
OTHERS = ("jupyterlab", "notebook", "jupyter_lsp", "jupyterlab_gpuhub")
"""Not needed here; without them a server starts sooner."""
PROGRAMS = Path(sys.executable).parent


class Workers:
    """Starts a real worker for each lease, as the local backend would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, lease: Lease, public_key: str) -> Link:
        folder = self.folder / f"w{lease.id[-4:]}"
        folder.mkdir(mode=0o700)
        host = make_key()
        (folder / "authorized_key").write_text(public_key + "\n")
        (folder / "host_key").write_text(host.private)
        env = {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "CUDA_VISIBLE_DEVICES": "SIM-0",
            "GPUHUB_LEASE": lease.id,
            "GPUHUB_FENCE_SECONDS": "5",
            "GPUHUB_GRACE_SECONDS": "5",
        }
        command = [sys.executable, "-P", "-m", "gpusession.worker", "--dir", str(folder)]
        self.running[lease.id] = spawn(command, env, folder / "log", start_new_session=True)
        ready = folder / "ready.json"
        await eventually(ready.exists, "the worker")
        return Link(address=json.loads(ready.read_text())["address"], host_key=host.public)

    async def stop(self, lease: Lease) -> None:
        process = self.running.pop(lease.id, None)
        if process is not None:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)

    def kill_all(self) -> None:
        for process in self.running.values():
            end_family(process)


class Desk:
    """One person's server. Start it again to see what comes back."""

    def __init__(self, folder: Path, broker: MemoryBroker, url: str, workers: Workers) -> None:
        self.folder, self.broker, self.workers, self._broker_url = folder, broker, workers, url
        self.home, self.run = folder / "home", folder / "run"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/user/ann/"

    @property
    def socket(self) -> Path:
        return self.run / "gpu.sock"

    def env(self, **more: str) -> dict[str, str]:
        """A terminal's environment."""
        return {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "HOME": str(self.home),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "GPUHUB_SOCKET": str(self.socket),
            **more,
        }

    async def start(self, *, extensions: Sequence[str] = (), **more: str) -> None:
        self.port = free_port()
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            "ServerApp": {
                "jpserver_extensions": {**dict.fromkeys(OTHERS, False), "gpusession.server": True},
                "allow_root": True,
                "base_url": "/user/ann/",
                "port": self.port,
                "open_browser": False,
                "root_dir": str(self.home),
            },
            "IdentityProvider": {"token": SIGN_IN},
            # In code-server's place: started by the proxy, as VS Code is.
            "ServerProxy": {
                "servers": {
                    "files": {"command": [sys.executable, "-m", "http.server", "{port}"], "timeout": 30}
                }
            },
        }
        for name in extensions:
            settings["ServerApp"]["jpserver_extensions"][name] = True
        (config / "jupyter_server_config.json").write_text(json.dumps(settings))
        env = {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "HOME": str(self.home),
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "JUPYTER_CONFIG_PATH": str(config),
            "JUPYTERHUB_USER": "ann",
            "JUPYTERHUB_API_TOKEN": TOKEN,
            "GPUHUB_BROKER_URL": self._broker_url,
            "GPUHUB_RUNTIME_DIR": str(self.run),
            "GPUHUB_FENCE_SECONDS": "5",
            "GPUHUB_SAVE_SECONDS": "30",
            "CUDA_VISIBLE_DEVICES": "",
            **more,
        }
        self.process = spawn([str(PROGRAMS / "jupyter-server")], env, self.folder / "log")
        await eventually(self._answers, "the server")
        assert await self.api("GET", "status")

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(aiohttp.ClientError):
            async with self.http.get(f"{self.url}api/status", headers=signed_in()) as answer:
                return answer.status == 200
        return False

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    # --- the interfaces

    async def api(self, method: str, path: str, *, expect: int | None = None, **more: Any) -> Any:
        """The session's interface, as a browser or a script sees it."""
        return await self.call(method, f"gpuhub/api/v1/{path}", expect=expect, **more)

    async def call(self, method: str, path: str, *, expect: int | None = None, **more: Any) -> Any:
        headers = {**signed_in(), **more.pop("headers", {})}
        async with self.http.request(method, self.url + path, headers=headers, **more) as answer:
            text = await answer.text()
            wanted = {expect} if expect else set(range(200, 300))
            assert answer.status in wanted, f"{method} {path}: {answer.status} {text}"
            return json.loads(text) if text else None

    async def open(self, path: str = "a.ipynb") -> Notebook:
        """Open a notebook with a kernel."""
        empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        await self.call("PUT", f"api/contents/{path}", json={"type": "notebook", "content": empty})
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        session = await self.call("POST", "api/sessions", json=body)
        return Notebook(self, session["kernel"]["id"], path)

    async def gpu(self, *words: str, **more: Any) -> Ran:
        """The ``gpu`` command in a terminal without a screen."""
        return await (await self.gpu_begins(*words, **more)).end()

    async def gpu_begins(
        self,
        *words: str,
        stdin: bytes | None = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Typed:
        process = await asyncio.create_subprocess_exec(
            str(PROGRAMS / "gpu"),
            *words,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env(**(env or {})),
            cwd=cwd or self.home,
        )
        return Typed(process, stdin)

    async def lease_state(self) -> str | None:
        lease = (await self.api("GET", "status"))["lease"]
        return str(lease["state"]) if lease else None


class Notebook:
    """A kernel of the server with a websocket of its own for each cell."""

    def __init__(self, desk: Desk, kernel: str, path: str) -> None:
        self.desk, self.kernel, self.path = desk, kernel, path

    async def run(self, code: str) -> str:
        """Run a cell; returns what it printed."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        header = {"msg_id": os.urandom(8).hex(), "username": "", "session": "s", "version": "5.3"}
        header |= {"msg_type": "execute_request", "date": "2026-01-01T00:00:00Z"}
        url = f"{self.desk.url}api/kernels/{self.kernel}/channels?token={SIGN_IN}"
        printed, replied, idle = [], False, False
        async with asyncio.timeout(PATIENCE_SECONDS), self.desk.http.ws_connect(url) as ws:
            body = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell"}
            await ws.send_json({**body, "content": content})
            while not (replied and idle):
                message = await ws.receive_json()
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                kind, said = message["msg_type"], message["content"]
                if kind == "stream":
                    printed.append(said["text"])
                replied = replied or kind == "execute_reply"
                idle = idle or (kind == "status" and said["execution_state"] == "idle")
        return "".join(printed)

    async def status(self) -> Any:
        return await self.desk.api("GET", f"kernels/{self.kernel}")

    async def flip(self, placement: str, **more: Any) -> Any:
        body = {"placement": placement, **more}
        await self.desk.api("PUT", f"kernels/{self.kernel}/placement", json=body, expect=202)
        return await self.settled()

    async def settled(self) -> Any:
        async def still() -> Any:
            status = await self.status()
            move = status["move"]
            return status if move is None or move["ended_at"] else None

        return await eventually(still, "the move to end")


class Ran:
    """What came of a command."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.out, self.err = code, out, err.decode()

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Typed:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: bytes | None) -> None:
        self.process, self._stdin = process, stdin

    async def end(self, seconds: float = PATIENCE_SECONDS) -> Ran:
        out, err = await asyncio.wait_for(self.process.communicate(self._stdin), seconds)
        assert self.process.returncode is not None
        return Ran(self.process.returncode, out, err)

    async def says(self, wanted: bytes) -> bytes:
        assert self.process.stdout is not None
        heard = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while wanted not in heard:
                part = await self.process.stdout.read(4096)
                assert part, f"it ended after {heard!r}"
                heard += part
        return heard


@contextlib.asynccontextmanager
async def server_with_broker(*, gpus: int = 2, ending_seconds: float = 60.0) -> AsyncIterator[Desk]:
    folder = Path(tempfile.mkdtemp(prefix="gd-"))
    workers = Workers(folder)
    broker = MemoryBroker(
        tokens={TOKEN: "ann", "another": "bob"},
        gpus=gpus,
        start_worker=workers.start,
        stop_worker=workers.stop,
        ending_seconds=ending_seconds,
    )
    desk = Desk(folder, broker, await broker.start(), workers)
    desk.home.mkdir()
    desk.run.mkdir(mode=0o700)
    desk.http = aiohttp.ClientSession()
    try:
        await desk.start()
        yield desk
    finally:
        await desk.http.close()
        if desk.process is not None:
            end_family(desk.process)
        await broker.close()
        workers.kill_all()
        shutil.rmtree(folder, ignore_errors=True)


def spawn(command: list[str], env: Mapping[str, str], log: Path, **more: Any) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **more)


def end_family(process: subprocess.Popen[bytes]) -> None:
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def signed_in() -> dict[str, str]:
    return {"Authorization": f"token {SIGN_IN}"}


async def eventually(check: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; last answer: {answer!r}")
        await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
