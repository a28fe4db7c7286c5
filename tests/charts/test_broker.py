"""The broker as the chart sets it up: its mounted files, its own account at a real API server, PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpulease.scopes import MANAGE_LEASES
from tests.charts.chart import MOUNT, RELEASE, Render, Rendered, mounted
from tests.cluster.controlplane import ControlPlane
from tests.postgres import Postgres, running_postgres
from tests.unit.spawner.played import free_port

KEY = "ssh-ed25519 " + "A" * 68
TOKEN = "the-brokers-own-token-at-the-hub"
SECONDS = 90.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A hub that knows Ann's token; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "token ann"
            ann = {"kind": "user", "name": "ann", "groups": [], "scopes": [f"{MANAGE_LEASES}!user=ann"]}
            body = json.dumps(ann if known else {}).encode()
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hub/api"
        server.shutdown()
        thread.join()


class BrokerPod:
    """A broker's process with the files and the account that its pod would have."""

    def __init__(self, folder: Path, made: Rendered, *, hub: str, account: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/services/gpu"
        self.log = folder / "log"
        mounted(made, "broker", folder)
        file = folder / "broker.json"
        settings = json.loads(file.read_text().replace(MOUNT, str(folder)))
        settings |= {"host": "127.0.0.1", "port": self.port, "hub_api_url": hub}
        settings["kubernetes"]["kubeconfig"] = str(account)
        file.write_text(json.dumps(settings))
        self._words = made.one("Deployment", "broker")["spec"]["template"]["spec"]["containers"][0]["args"]
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, *(word.replace(MOUNT, str(self._folder)) for word in self._words[1:])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; killed where it does not come."""
        if self.process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def status(self, path: str) -> int:
        """What it answers; 0: nothing."""
        try:
            return httpx.get(f"{self.url}/{path}", timeout=2, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def ready(self) -> bool:
        return self.status("ready") == 200

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx.request(
            method,
            f"{self.url}/api/v1/{path}",
            headers={"Authorization": "Bearer ann"},
            json=body,
            timeout=20,
            trust_env=False,
        )
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


def until(condition: Callable[[], object], what: str, *brokers: BrokerPod) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        story = "\n".join(broker.log.read_text()[-3000:] for broker in brokers)
        assert time.monotonic() < deadline, f"in vain: {what}\n{story}"
        time.sleep(0.2)


@pytest.fixture
def account(installed: ControlPlane, tmp_path: Path) -> Path:
    """A kubeconfig with a token of the broker's account, and nothing else."""
    token = installed.kubectl("create", "token", "broker", "-n", RELEASE).strip()
    config = json.loads(installed.kubectl.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = tmp_path / "broker.kubeconfig"
    file.write_text(json.dumps(config))
    return file


def rendered(render: Render, url: str) -> Rendered:
    return render(
        "cluster-test",
        broker={
            "database": {"external": True},
            "pools": [{"name": "h100", "admission": "scheduler", "total": 4}],
        },
        secrets={"values": {"broker-database-url": url, "broker-token": TOKEN}},
    )


@pytest.fixture
def pair(
    render: Render, postgres: Postgres, hub: str, account: Path, tmp_path: Path
) -> Iterator[list[BrokerPod]]:
    """Two brokers by mistake: one release, one database."""
    made = rendered(render, postgres.database())
    brokers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        brokers.append(BrokerPod(tmp_path / name, made, hub=hub, account=account))
    try:
        yield brokers
    finally:
        for broker in brokers:
            if broker.process is not None:
                broker.signal(signal.SIGTERM)
        for broker in brokers:
            broker.end()


def test_with_postgresql_it_has_the_address_from_a_file_and_no_claim(render: Render, tmp_path: Path) -> None:
    made = rendered(render, "postgresql+psycopg://gpuhub:p%40ss@db.example.org/broker?sslmode=verify-full")
    mounted(made, "broker", tmp_path)
    assert "p%40ss" not in (tmp_path / "broker.json").read_text()
    assert json.loads((tmp_path / "broker.json").read_text())["database_url_file"] == (
        f"{MOUNT}/secrets/broker-database-url"
    )
    assert (tmp_path / "secrets/broker-database-url").read_text().endswith("sslmode=verify-full")
    claims = {entry["metadata"]["name"] for entry in made.of("PersistentVolumeClaim")}
    assert claims == {"hub-data"}
    [data] = [
        volume
        for volume in made.one("Deployment", "broker")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "data"
    ]
    assert data == {"name": "data", "emptyDir": {}}


def test_of_two_brokers_on_one_postgresql_one_serves_and_the_other_takes_over(pair: list[BrokerPod]) -> None:
    for broker in pair:
        broker.start()
    until(lambda: any(broker.ready() for broker in pair), "one of them is ready", *pair)
    until(lambda: all(broker.status("health") == 200 for broker in pair), "both live", *pair)
    leader, other = sorted(pair, key=lambda broker: not broker.ready())
    assert not other.ready()
    assert other.status("api/v1/me") == 503

    lease = leader.ask("POST", "leases", {"public_key": KEY, "pool": "h100"})
    leader.signal(signal.SIGKILL)
    leader.end()
    until(other.ready, "the other one leads", *pair)
    assert [one["id"] for one in other.ask("GET", "leases")["leases"]] == [lease["id"]]

    leader.start()
    until(lambda: leader.status("health") == 200, "it is back", *pair)
    assert (leader.status("ready"), other.status("ready")) == (503, 200)

    # One that was stopped for a while does not go on where it was: another one leads by then.
    other.signal(signal.SIGSTOP)
    until(leader.ready, "the first one leads again", *pair)
    other.signal(signal.SIGCONT)
    assert other.status("api/v1/me") in (503, 0)
    until(lambda: other.status("ready") == 503, "it knows that it does not lead", *pair)
    assert leader.ready()
    assert [one["id"] for one in leader.ask("GET", "leases")["leases"]] == [lease["id"]]

    # Told to end, the leader hands on at once.
    leader.signal(signal.SIGTERM)
    assert leader.end() == 0
    until(other.ready, "the other one leads", *pair)


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password(
    render: Render, hub: str, account: Path, tmp_path: Path
) -> None:
    made = rendered(render, f"postgresql+psycopg://gpuhub:very-secret@127.0.0.1:{free_port()}/broker")
    (tmp_path / "pod").mkdir()
    broker = BrokerPod(tmp_path / "pod", made, hub=hub, account=account)
    broker.start()
    assert broker.end() == 1
    lines = [json.loads(line) for line in broker.log.read_text().splitlines()]
    assert lines[-1]["event"] == "the broker cannot run"
    assert "the database does not answer" in lines[-1]["why"]
    assert "Traceback" not in broker.log.read_text()
    assert "very-secret" not in broker.log.read_text()
