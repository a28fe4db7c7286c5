"""`gpuhub up` itself: refusals, crashes of its parts, its own end, and the next start."""

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

import psutil
import pytest

from tests.person import Person
from tests.running import RunningHub
from tests.service.hub.browsing import sign_in, signed_in
from tests.service.hub.test_sign_in_and_start import server_process

PASSWORD = "correct-horse-battery"


def up(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpuhub.cli", "up", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_in_use_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = up("--data", str(tmp_path / "d"), "--port", port)
    assert done.returncode == 2
    assert f"Port {port} of 127.0.0.1 is already in use." in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_authenticator_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = up("--data", str(tmp_path / "d"), "--port", "0", "--auth", "palm-reading")
    assert done.returncode == 2
    assert "There is no authenticator palm-reading." in done.stderr


def test_a_bad_policy_file_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("idle_after_secs: 5\n")
    done = up("--data", str(tmp_path / "d"), "--port", "0", "--policy", str(policy))
    assert done.returncode == 2
    assert "policy.yaml" in done.stderr
    assert "idle_after_secs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "one") as hub:
        done = up("--data", str(hub.data), "--port", "0")
        assert done.returncode == 2
        assert "Another gpuhub is running with the data folder" in done.stderr
        hub.wait_until_ready()


def test_the_ready_file_is_complete_private_and_removed_at_the_end(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "one") as hub:
        assert hub.ready_file.stat().st_mode & 0o777 == 0o600
        ready = json.loads(hub.ready_file.read_text())
        assert {"url", "admin_token", "users"} <= set(ready)
        with signed_in(hub, ready["users"][0]["name"], ready["users"][0]["password"]):
            pass
        said = hub.log()
        assert hub.url in said
        assert hub.password in said
        assert "2 simulated GPUs" in said
        children = [
            psutil.Process(pid) for pid in (hub.child(name).pid for name in ("hub", "proxy", "launcher"))
        ]
        assert hub.stop(signal.SIGINT) == 0
        assert not hub.ready_file.exists()
        assert not [child for child in children if child.is_running()]


async def test_a_killed_part_comes_again_and_servers_go_on(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "one") as hub:
        async with await Person.enrol(hub.url, hub.admin_token, "gil") as gil:
            await gil.start_server()
            server = server_process("gil")
            for name in ("hub", "proxy", "launcher"):
                before = hub.kill_child(name)
                deadline = time.monotonic() + 60
                while True:
                    assert time.monotonic() < deadline, f"{name}: {hub.log()}"
                    try:
                        assert hub.child(name).pid != before
                        hub.wait_until_ready()
                        status = await gil.http.get(f"{gil.server_url}api/status", headers=gil.headers)
                        if status.status == 200:
                            break
                    except AssertionError:
                        pass
                    await asyncio.sleep(0.2)
                assert server.is_running(), name
            user = await gil.hub_api("GET", "users/gil")
            assert user["servers"][""]["ready"]


async def test_the_end_stops_servers_and_says_so(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path / "one").start()
    async with await Person.enrol(hub.url, hub.admin_token, "hal") as hal:
        await hal.start_server()
        server = server_process("hal")
        assert hub.stop(signal.SIGINT) == 0
        assert not server.is_running()
        assert "saving 1 server…" in hub.log()


async def test_the_next_start_finds_servers_that_outlived_a_kill(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path / "one").start()
    try:
        async with await Person.enrol(hub.url, hub.admin_token, "ida") as ida:
            await ida.start_server()
            server = server_process("ida")
            parts = [hub.child(name) for name in ("hub", "proxy", "broker", "launcher")]
            hub.kill()
            assert not [part for part in parts if part.is_running()]
            assert server.is_running()
            url, password = hub.url, hub.password
            hub.start()
            assert hub.password == password
            assert url.split(":")[0] == hub.url.split(":")[0]
            ida.url = hub.url
            user = await ida.hub_api("GET", "users/ida")
            assert user["servers"][""]["ready"]
            status = await ida.http.get(f"{hub.url}user/ida/api/status", headers=ida.headers)
            assert status.status == 200
            assert server.is_running()
    finally:
        hub.stop()
    assert not server.is_running()


@pytest.mark.root
def test_hub_and_broker_need_not_be_root(open_folder: Path) -> None:
    with RunningHub(open_folder / "as-nobody", "--run-as", "nobody") as hub:
        owners = {name: hub.child(name).username() for name in ("hub", "proxy", "broker", "launcher")}
        assert owners == {"hub": "nobody", "proxy": "nobody", "broker": "nobody", "launcher": "root"}
        with signed_in(hub, "ann") as ann:
            assert "Start your server" in ann.get("hub/spawn").text


@pytest.mark.root
def test_a_data_folder_that_the_service_cannot_reach_is_refused(tmp_path: Path) -> None:
    done = up("--data", str(tmp_path / "d"), "--port", "0", "--run-as", "nobody")
    assert done.returncode == 2
    assert "--run-as nobody: other accounts of this machine cannot reach" in done.stderr


@pytest.mark.root
async def test_with_pam_each_server_runs_as_the_persons_own_account(
    open_folder: Path, person_of_machine: str
) -> None:
    with RunningHub(open_folder / "pam", "--auth", "pam", "--admin", "root") as hub:
        assert hub.ready["accounts"] == "pam"
        client, refused = sign_in(hub, person_of_machine, "wrong")
        client.close()
        assert refused.status_code == 403
        client, refused = sign_in(hub, "nobody", "")
        client.close()
        assert refused.status_code == 403
        with signed_in(hub, person_of_machine, PASSWORD) as person:
            assert "Start your server" in person.get("hub/spawn").text
        async with await Person.enrol(hub.url, hub.admin_token, person_of_machine) as person:
            await person.start_server()
            process = server_process(person_of_machine)
            assert process.username() == person_of_machine
            assert process.environ()["HOME"] == f"/home/{person_of_machine}"
            await person.stop_server()


@pytest.fixture
def person_of_machine() -> Iterator[str]:
    """A throwaway account of this machine, with the password `PASSWORD`."""
    name = f"gpuhub{os.getpid() % 100000}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}", text=True, check=True)
        yield name
    finally:
        subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)
