"""The local backend over a real launcher: what the broker relies on, on one machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuhub.backends.base import BackendError, Phase, WorkerOrder, WorkerSeen
from gpuhub.backends.local import LocalBackend
from gpuhub.backends.local.backend import pool_name, worker_seen, worker_unit_id
from gpuhub.telemetry.simulated import SimulatedTelemetry
from gpuhub.telemetry.sources import Machine
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import UnitSeen
from gpuspawner.names import server_unit_id
from tests.launching import RunningLauncher, place, running_launcher, stand_in_prefix, until

LEASE = "7f3c9a0b5d2e4f61"
OTHER = "a1b2c3d4e5f60718"
KEY = "ssh-ed25519 " + "A" * 68


@pytest.fixture
async def launcher() -> AsyncIterator[RunningLauncher]:
    async with running_launcher() as running:
        yield running


def backend_on(launcher: RunningLauncher, gpus: str = "sim:2") -> LocalBackend:
    return LocalBackend(
        launcher.client,
        gpus=Machine(gpus).gpus,
        accounts=Accounts("shared", homes=launcher.folder / "homes"),
        prefix=str(launcher.prefix),
    )


def order(lease_id: str = LEASE, *devices: str, **fields: object) -> WorkerOrder:
    content: dict[str, object] = {
        "lease_id": lease_id,
        "user": "ann",
        "server": "",
        "pool": "simulated",
        "gpus": len(devices) or 1,
        "device_ids": devices or ("SIM-0",),
        "public_key": KEY,
        "host_key": "private",
        "grace_seconds": 5,
        **fields,
    }
    return WorkerOrder(**content)


async def seen(backend: LocalBackend, phase: Phase, lease_id: str = LEASE) -> WorkerSeen:
    async def look() -> WorkerSeen | None:
        worker = (await backend.observe()).get(lease_id)
        return worker if worker is not None and worker.phase is phase else None

    return await until(look, f"the worker is {phase}")


async def test_simulated_gpus_are_one_pool_that_says_so(launcher: RunningLauncher) -> None:
    [pool] = await backend_on(launcher, "sim:3").offers()
    assert (pool.name, pool.title, pool.total, pool.simulated) == ("simulated", "simulated GPU", 3, True)
    assert [device.name for device in pool.devices] == [f"simulated GPU {n}" for n in range(3)]
    assert await backend_on(launcher, "none").offers() == ()


async def test_a_worker_knows_its_lease_and_its_gpus(launcher: RunningLauncher) -> None:
    backend = backend_on(launcher)
    await backend.start(order(LEASE, "SIM-1"))
    ready = await seen(backend, Phase.READY)
    unit = await launcher.seen(worker_unit_id(LEASE))
    environment = unit.ready["environment"]

    assert ready.address == f"unix:{unit.folder}/ssh.sock"
    assert ready.device_ids == ("SIM-1",)
    assert environment["GPUHUB_LEASE"] == LEASE
    assert environment["CUDA_VISIBLE_DEVICES"] == "SIM-1"
    assert environment["GPUHUB_GRACE_SECONDS"] == "5"
    assert environment["HOME"] == str(launcher.folder / "homes" / "ann")
    [device] = json.loads(environment["GPUHUB_DEVICES"])
    assert (device["id"], device["simulated"]) == ("SIM-1", True)
    assert (place(unit) / "host_key").read_text() == "private"
    assert (place(unit) / "authorized_key").read_text() == KEY + "\n"
    assert "private" not in "".join(environment.values())


async def test_a_key_that_comes_later_replaces_the_first(launcher: RunningLauncher) -> None:
    backend = backend_on(launcher)
    await backend.start(order())
    await backend.start(order(public_key=KEY.replace("A", "B")))
    unit = await launcher.seen(worker_unit_id(LEASE))
    assert (place(unit) / "authorized_key").read_text().startswith("ssh-ed25519 BBB")
    assert len(await backend.observe()) == 1


async def test_a_worker_runs_where_its_owners_server_runs(launcher: RunningLauncher) -> None:
    other = stand_in_prefix(launcher.folder / "other")
    launcher.kill()
    launcher.settings["prefixes"].append(str(other))
    await launcher.start()
    await launcher.client.start(
        launcher.order(server_unit_id("ann", ""), "never-ready", kind="server", prefix=str(other))
    )
    backend = backend_on(launcher)
    assert await backend.server_running("ann", "") is True
    assert await backend.server_running("bob", "") is False
    assert list(await backend.observe()) == [], "a server is no worker"

    await backend.start(order())
    assert (await launcher.seen(worker_unit_id(LEASE))).prefix == str(other)
    await backend.start(order(OTHER, "SIM-1", user="bob"))
    assert (await launcher.seen(worker_unit_id(OTHER))).prefix == str(launcher.prefix)


async def test_a_stopped_worker_is_seen_until_it_is_forgotten(launcher: RunningLauncher) -> None:
    backend = backend_on(launcher)
    await backend.start(order())
    await seen(backend, Phase.READY)
    await backend.stop(LEASE, grace_seconds=5)
    exited = await seen(backend, Phase.EXITED)
    assert exited.address is None
    await backend.start(order())
    assert (await backend.observe())[LEASE].phase is Phase.EXITED
    await backend.forget(LEASE)
    assert await backend.observe() == {}


async def test_another_broker_finds_the_worker(launcher: RunningLauncher) -> None:
    await backend_on(launcher).start(order())
    successor = backend_on(launcher)
    await seen(successor, Phase.READY)
    await successor.start(order())
    assert len(await launcher.client.list()) == 1


async def test_a_gpu_is_not_given_twice(launcher: RunningLauncher) -> None:
    backend = backend_on(launcher)
    await backend.start(order(LEASE, "SIM-0"))
    with pytest.raises(BackendError):
        await backend.start(order(OTHER, "SIM-0"))
    with pytest.raises(BackendError):
        await backend.start(order(OTHER, "SIM-7"))
    with pytest.raises(BackendError):
        await backend.start(order(OTHER, "SIM-1", gpus=2))


async def test_without_a_launcher_nothing_is_concluded(launcher: RunningLauncher) -> None:
    launcher.kill()
    backend = LocalBackend(
        LauncherClient(launcher.socket, patience_seconds=0),
        gpus=Machine("sim:1").gpus,
        accounts=Accounts("shared", homes=launcher.folder),
        prefix=str(launcher.prefix),
    )
    assert await backend.server_running("ann", "") is None
    with pytest.raises(BackendError):
        await backend.observe()
    telemetry = SimulatedTelemetry(await Machine("sim:1").gpus(), backend.processes_on)
    assert await telemetry.sample() == []


async def test_a_worker_that_ends_by_itself_says_how(launcher: RunningLauncher) -> None:
    (launcher.prefix / "bin" / "python").unlink()
    backend = backend_on(launcher)
    await backend.start(order())
    assert "could not be started" in (await seen(backend, Phase.EXITED)).message


async def test_a_simulated_gpu_is_busy_while_its_worker_computes(launcher: RunningLauncher) -> None:
    backend = backend_on(launcher)
    machine = Machine("sim:2")
    telemetry = machine.telemetry(backend.processes_on)
    unit_id = worker_unit_id(LEASE)
    await launcher.client.start(launcher.order(unit_id, "burn", devices=("SIM-0",), label=LEASE))
    await launcher.ready(unit_id)

    async def busy() -> bool:
        first, second = await telemetry.sample()
        return first.utilisation_percent > 20 and first.memory_bytes > 0 and second.utilisation_percent == 0

    await until(busy, "the simulated GPU is busy")
    await launcher.client.stop(unit_id, 0)
    await launcher.exited(unit_id)

    async def silent() -> bool:
        return (await telemetry.sample())[0].utilisation_percent == 0

    await until(silent, "the simulated GPU is silent")


# --- what a worker says of itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        None,
        7,
        "",
        "tcp:evil.example:22",
        "unix:/etc/passwd",
        "unix:/run/w-1/../../etc/x",
        "unix:/run/w-1/",
        "unix:/run/w-1/a/b",
        "unix:/run/w-1/ssh.sock\n",
        "unix:/run/w-2/ssh.sock",
    ],
)
def test_an_address_outside_the_workers_own_folder_does_not_count(address: object) -> None:
    unit = UnitSeen(
        id="w-1",
        kind="worker",
        phase="running",
        started_at=0,
        folder="/run/w-1",
        ready={"address": address},
        label=LEASE,
    )
    assert worker_seen(unit).phase is Phase.STARTING
    good = unit.model_copy(update={"ready": {"address": "unix:/run/w-1/ssh.sock"}})
    assert worker_seen(good).phase is Phase.READY


def test_names_of_units_and_pools_are_safe() -> None:
    assert worker_unit_id(LEASE) == "w-7f3c9a0b5d2e"
    assert worker_unit_id("7f3c9a0b-5d2e-4f61-8000-000000000000") == "w-7f3c9a0b5d2e"
    assert worker_unit_id("lease/../x") != worker_unit_id("lease/../y")
    assert pool_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert Path(worker_unit_id("../../etc")).name.startswith("w-")
