"""A node that is played (kubelet, GPUs), a real agent on it, and a real broker, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.builders import KEY
from tests.cluster.nvml.build import build
from tests.launching import short_folder, until
from tests.service.agent.broker_process import NAMESPACE, NODE, pod_of
from tests.service.agent.kubelet import Kubelet, running_kubelet
from tests.service.agent.standin import StandIn

POLICY = {"idle_after_seconds": 12, "warn_seconds": 40, "gpus_at_once": 2}
"""The warning is longer than a sample stays fresh: else a lease could end on the last one's word."""
TOKEN = "token-of-the-agents-pod"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(tmp_path: Path, library: Path) -> StandIn:
    return StandIn(tmp_path, library)


class Program:
    """A process and what it said."""

    def __init__(self, log: Path, *command: str, env: dict[str, str] | None = None) -> None:
        self._log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=file, stderr=file, env=os.environ | (env or {})
            )

    def log(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> float:
        """Send a signal; returns the seconds until the process had ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(seconds)
        return time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


class Node:
    """Everything of one test."""

    def __init__(self, folder: Path, library: Path, kubelet: Kubelet) -> None:
        self.folder, self.kubelet = folder, kubelet
        self.gpus = StandIn(folder, library)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/services/gpu"
        self.token_file = folder / "token"
        self.token_file.write_text(TOKEN)
        (folder / "tokens.json").write_text(json.dumps({TOKEN: NODE}))
        (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        (folder / "pods").mkdir()
        self.programs: list[Program] = []

    def start_broker(self) -> Program:
        return self._start(
            "broker", "-m", "tests.service.agent.broker_process", str(self.port), str(self.folder)
        )

    def start_agent(self, **environment: str) -> Program:
        told = {
            "GPUHUB_NODE": NODE,
            "GPUHUB_BROKER_URL": self.url,
            "GPUHUB_TOKEN_FILE": str(self.token_file),
            "GPUHUB_POD_RESOURCES": str(self.kubelet.socket),
            "GPUHUB_POD_LOGS": str(self.folder / "pods"),
        }
        env = self.gpus.environment | told | environment
        return self._start("agent", "-P", "-m", "gpuhub.telemetry.agent", env=env)

    def _start(self, name: str, *command: str, env: dict[str, str] | None = None) -> Program:
        program = Program(self.folder / f"{name}.log", *command, env=env)
        self.programs.append(program)
        return program

    async def ask(self, method: str, path: str, **fields: Any) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as http:
            return await http.request(
                method, f"/api/v1/{path}", headers={"Authorization": "Bearer ann"}, **fields
            )

    async def broker_answers(self) -> None:
        async def answers() -> bool:
            try:
                return (await self.ask("GET", "me")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(answers, "the broker answers", 60)

    async def lease(self, *, device: str | None = None) -> dict[str, Any]:
        """Ann's lease, active; its pod has ``device`` by the kubelet's word."""
        made = (await self.ask("POST", "leases", json={"public_key": KEY})).json()
        if device is not None:
            self.kubelet.pods[NAMESPACE, pod_of(made["id"])] = [device]
        return await self.when(made, lambda lease: lease["state"] == "active", "the lease is active")

    async def see(self, lease: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("GET", f"leases/{lease['id']}")).json()
        return found

    async def when(
        self, lease: dict[str, Any], condition: Any, what: str, seconds: float = 40.0
    ) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            await asyncio.sleep(0.25)
            seen = await self.see(lease)
            return seen if condition(seen) else None

        try:
            found: dict[str, Any] = await until(look, what, seconds)
        except AssertionError as error:
            logs = "\n".join(program.log()[-3000:] for program in self.programs)
            raise AssertionError(f"{error}\n{await self.see(lease)}\n{logs}") from None
        return found


@pytest.fixture
def node(library: Path) -> Iterator[Node]:
    with short_folder() as folder, running_kubelet(folder / "kubelet.sock") as kubelet:
        place = Node(folder, library, kubelet)
        try:
            yield place
        finally:
            for program in place.programs:
                program.close()
