"""`gpuhub trial`: the program that walks a person's journey, against a real hub."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.person import Person
from tests.running import RunningHub


def trial(hub: RunningHub, *options: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it as `helm test` does."""
    file = hub.folder / "trial-password"
    file.write_text((hub.password if password is None else password) + "\n")
    command = [sys.executable, "-P", "-m", "gpuhub.trial", "--url", hub.url, *options]
    if "--token-file" not in options:
        command += ["--password-file", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


async def servers(hub: RunningHub, name: str) -> list[str]:
    async with await Person.enrol(hub.url, hub.admin_token, name) as person:
        return list((await person.hub_api("GET", f"users/{name}"))["servers"])


async def test_the_journey_says_each_step_and_leaves_nothing_behind(hub: RunningHub) -> None:
    done = await asyncio.to_thread(trial, hub, "--user", "gil")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert steps == [
        "Sign in as gil",
        "Start a server",
        "Open a notebook",
        "Run a cell",
        "Move the kernel onto a GPU",
        "Find the variable there",
        "Move it back",
        "Find the variable again",
        "Release the GPU",
        "Stop the server",
        "The journey works.",
    ]
    async with await Person.enrol(hub.url, hub.admin_token, "gil") as gil:
        assert (await gil.hub_api("GET", "users/gil"))["servers"] == {}
        assert await gil.lease() is None
        tokens = (await gil.hub_api("GET", "users/gil/tokens"))["api_tokens"]
        assert [token for token in tokens if token["note"] == "gpuhub trial"] == []


async def test_a_token_does_where_people_sign_in_elsewhere(hub: RunningHub, tmp_path: Path) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "hal") as hal:
        file = tmp_path / "token"
        file.write_text(hal.token)
        done = await asyncio.to_thread(
            trial, hub, "--user", "hal", "--token-file", str(file), "--no-gpu", "--patience", "120"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Show the token of hal" in done.stdout
        assert "GPU" not in done.stdout


async def test_a_server_that_runs_already_is_used_and_left_running(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "ida") as ida:
        await ida.start_server()
        try:
            done = await asyncio.to_thread(trial, hub, "--user", "ida", "--no-gpu")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "A server runs already" in done.stdout
            assert (await ida.hub_api("GET", "users/ida"))["servers"][""]["ready"]
            sessions = await ida.api("GET", f"{ida.server_url}api/sessions")
            assert sessions == []
        finally:
            await ida.stop_server()


def test_a_wrong_password_is_one_sentence_and_exit_code_1(hub: RunningHub) -> None:
    done = trial(hub, "--user", "jan", password="wrong")
    assert done.returncode == 1
    assert "FAILED  Sign in as jan: name or password was refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_where_nothing_answers_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("x")
    command = [sys.executable, "-P", "-m", "gpuhub.trial", "--url", "http://127.0.0.1:9/"]
    done = subprocess.run(
        [*command, "--password-file", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9/ does not answer" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_gpu_that_nobody_has_fails_that_step_and_stops_the_server(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "none", gpus="none") as hub:
        done = await asyncio.to_thread(trial, hub, "--user", "kim", "--patience", "90")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "FAILED  Move the kernel onto a GPU: " in done.stderr
        for _ in range(100):
            if not await servers(hub, "kim"):
                break
            await asyncio.sleep(0.3)
        assert await servers(hub, "kim") == []
