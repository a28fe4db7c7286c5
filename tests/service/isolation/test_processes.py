"""Processes of others: not looked into, not signalled; and no secret where every account may look."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psutil
import pytest

from tests.service.isolation.conftest import Scene
from tests.service.session.test_on_a_hub import Typing, secrets_of

pytestmark = pytest.mark.root

LOOKS = """
import os, signal
result = []
for pid in pids:
    for way in ("environ", "mem", "maps", "fd", "cwd", "root", "signal", "freeze"):
        try:
            if way == "signal":
                os.kill(pid, 0)
            elif way == "freeze":
                os.kill(pid, signal.SIGCONT)
            elif way == "fd":
                os.listdir(f"/proc/{pid}/fd")
            elif way in ("cwd", "root"):
                os.readlink(f"/proc/{pid}/{way}")
            else:
                with open(f"/proc/{pid}/{way}", "rb") as file:
                    file.read(1) if way != "mem" else None
        except OSError:
            continue
        result.append([way, pid])
"""
ENVIRONMENT = """
import os
result = {}
for pid in os.listdir("/proc"):
    try:
        with open(f"/proc/{pid}/environ") as file:
            result[pid] = file.read()
    except (OSError, ValueError):
        pass
result = {"own": "\\n".join(f"{name}={value}" for name, value in os.environ.items()), "seen": result}
"""


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_eve_looks_into_no_process_of_ann_or_the_hub_and_signals_none(scene: Scene, where: str) -> None:
    others = {one.pid for one in scene.processes()} - {one.pid for one in scene.processes(scene.eve)}
    assert scene.ann.server_pid in others
    assert {scene.hub.pid, *(scene.hub.child(name).pid for name in ("hub", "broker", "launcher"))} <= others
    assert await scene.run(scene.eve, where, LOOKS, pids=sorted(others)) == []


async def test_ann_sees_her_own_by_the_same_means_and_her_workers_are_other_processes(scene: Scene) -> None:
    seen = await scene.run(scene.ann, "server", LOOKS, pids=[scene.ann.server_pid])
    assert {way for way, _ in seen} >= {"environ", "fd", "signal"}


def test_no_command_line_holds_a_secret_since_every_account_reads_them(scene: Scene) -> None:
    secrets = secrets_of(scene.hub.data) | {scene.ann.server_token, scene.eve.server_token}
    assert len(secrets) > 5
    lines = []
    for process in scene.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            lines += process.cmdline()
    assert [word for word in lines if any(secret in word for secret in secrets)] == []


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_a_notebook_finds_no_secret_in_its_environment(scene: Scene, where: str) -> None:
    found: dict[str, Any] = await scene.run(scene.eve, where, ENVIRONMENT)
    secrets = secrets_of(scene.hub.data) | {scene.ann.server_token}
    everything = found["own"] + "".join(found["seen"].values())
    assert [one for one in secrets if one in everything] == []
    assert scene.eve.server_token not in found["own"]
    assert "TOKEN" not in found["own"]
    assert "BROKER" not in found["own"]


def test_no_process_on_a_worker_is_given_any_token(scene: Scene) -> None:
    secrets = secrets_of(scene.hub.data) | {scene.ann.server_token, scene.eve.server_token}
    looked = 0
    for worker in scene.processes():
        if "gpusession.worker" not in " ".join(worker.cmdline()):
            continue
        for process in [worker, *worker.children(recursive=True)]:
            env = process.environ()
            looked += 1
            assert [name for name in env if "TOKEN" in name] == []
            assert [name for name, value in env.items() if any(one in value for one in secrets)] == []
    assert looked >= 4, "two workers with a kernel each were to be seen"


async def test_a_terminal_knows_eves_own_token_and_no_other_secret(scene: Scene) -> None:
    async with scene.at_work(scene.eve) as eve:
        typing = await Typing.open(eve)
        seen = await typing.run("env")
        await typing.close()
    seen = seen.replace("\r", "").replace("\n", "")
    secrets = secrets_of(scene.hub.data) | {scene.ann.server_token}
    assert [one for one in secrets if one in seen] == []


async def test_a_program_on_the_worker_sees_eves_gpu_whatever_she_asks_for(scene: Scene) -> None:
    device = "import os\nresult = os.environ['CUDA_VISIBLE_DEVICES']"
    anns, eves = await asyncio.gather(
        scene.run(scene.ann, "worker", device), scene.run(scene.eve, "worker", device)
    )
    assert anns != eves
    async with scene.at_work(scene.eve) as eve:
        typing = await Typing.open(eve)
        ask = f"CUDA_VISIBLE_DEVICES={anns} NVIDIA_VISIBLE_DEVICES={anns} gpu run sh -c"
        said = await typing.run(f"{ask} 'echo seen=[$CUDA_VISIBLE_DEVICES][$NVIDIA_VISIBLE_DEVICES]'")
        await typing.close()
    assert f"seen=[{eves}]" in said
    assert f"[{anns}]" not in said.rpartition("seen=")[2]
