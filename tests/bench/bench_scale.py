"""A campus on one small machine: the broker beside a real API server, with machines that kwok plays.

1 000 servers, 200 machines with two GPUs each, 500 people who ask for one. Nothing of gpuhub is played: the
broker, its store (SQLite) and its watch of the cluster are what a site runs; etcd, API server, scheduler and
controllers are Kubernetes' own; the machines say at once that a pod runs, so what is left is what the two
control planes cost. Beside each way: the same with plain pods of that cluster, without gpuhub.

Wants Go (the cluster is built from Go modules), no root.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from gpuhub.backends.kubernetes.api import PODS, Api, ClusterApi
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from gpuhub.backends.kubernetes.settings import KubernetesSettings
from gpuhub.broker.actors import Actor
from gpuhub.broker.assembly import Broker
from gpuhub.broker.settings import PolicySettings
from gpuhub.store import Store
from gpuhub.telemetry.base import NoTelemetry
from gpuhub.telemetry.sampler import Sampler
from gpulease.models import Acknowledge, LeaseRequest
from gpulease.states import LeaseState
from tests.bench.table import show, spread
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.cluster.fakenodes import fake_nodes, toleration
from tests.unit.backends.machines import GPU, server_pod

MACHINES, GPUS_EACH = 200, 2
SERVERS = 1_000
LEASES = 500
ROUNDS = 15
AT_ONCE = 32
CALM_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
KEY = "ssh-ed25519 " + "A" * 68
USERS = "gpuhub-users"
PROGRAMS = ("kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_control_plane(Path(folder)) as plane,
        fake_nodes(plane, MACHINES, GPUS_EACH),
    ):
        asyncio.run(measure(plane))


async def measure(plane: ControlPlane) -> None:
    kubeconfig = plane.certificates.kubeconfig
    api = await ClusterApi.connect(kubeconfig)
    try:
        plain = await furnish(plane, api)
        settings = KubernetesSettings.model_validate(
            {
                "namespace": "default",
                "users_namespace": USERS,
                "kubeconfig": kubeconfig,
                "telemetry": "none",
                "pools": [{"name": "fake", "tolerations": [toleration()]}],
            }
        )
        await measure_broker(settings, plain)
    finally:
        await api.close()


async def furnish(plane: ControlPlane, api: Api) -> list[float]:
    """A server for everybody; returns how long a plain pod takes to a GPU that has just become free."""
    plane.kubectl("create", "namespace", USERS)
    plane.kubectl.apply(_homes())
    began = time.perf_counter()
    await every(range(SERVERS), lambda number: api.create(PODS, USERS, _server(number)))
    await until(lambda: _running(api), SERVERS, "the servers")
    seconds = time.perf_counter() - began
    print(f"{SERVERS:,} servers on {MACHINES} machines: {seconds:.0f} s, {SERVERS / seconds:.0f} a second")
    full = MACHINES * GPUS_EACH
    running: set[str] = set()
    watching = asyncio.create_task(_follow(api, running))
    await every(range(full + ROUNDS), lambda number: api.create(PODS, "default", _plain(number)))

    async def count() -> int:
        return len(running)

    await until(count, full, "plain pods with GPUs")
    taken = []
    for name in sorted(running)[:ROUNDS]:
        begun = time.perf_counter()
        await api.delete(PODS, "default", name, grace_seconds=0)

        async def passed(name: str = name) -> int:
            return 0 if name in running else len(running)

        await until(passed, full, "the next plain pod", pause=0.01)
        taken.append(time.perf_counter() - begun)
    watching.cancel()
    await every(sorted(running), lambda name: api.delete(PODS, "default", name, grace_seconds=0))
    return taken


async def _follow(api: Api, running: set[str]) -> None:
    """Keep the names of the plain pods that run."""
    version = (await api.list(PODS, "default")).version
    async for change in api.watch(PODS, "default", version=version, seconds=3600):
        if change.what in ("ADDED", "MODIFIED", "DELETED"):
            name = change.object["metadata"]["name"]
            (running.add if change.what != "DELETED" and _runs(change.object) else running.discard)(name)


async def measure_broker(settings: KubernetesSettings, plain: list[float]) -> None:
    me = psutil.Process()
    before = me.memory_info().rss
    backend = KubernetesBackend(await ClusterApi.connect(settings.kubeconfig), settings)
    listening = asyncio.create_task(backend.run())
    began = time.perf_counter()
    assert await backend.listen(seconds=PATIENCE_SECONDS)
    first_look = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(f"sqlite+aiosqlite:///{folder}/gpuhub.sqlite")
        policy = PolicySettings()
        async with Broker(store, backend, Sampler(NoTelemetry()), policy) as broker:
            began = time.perf_counter()
            await every(
                range(LEASES), lambda n: broker.service.request(_actor(n), LeaseRequest(public_key=KEY), None)
            )
            asked = time.perf_counter() - began
            full = MACHINES * GPUS_EACH
            await until(lambda: _active(broker), full, "the leases")
            bound = time.perf_counter() - began
            taken = [await _pass_on(broker, full) for _ in range(ROUNDS)]
            calm = await _calm(me)
            memory = me.memory_info().rss - before
        await store.close()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await backend.close()
    ratio = statistics.median(taken) / statistics.median(plain)
    show(
        ["what", "seen", "beside it"],
        [
            ["first look at the cluster", f"{first_look:.2f} s", ""],
            [f"{LEASES} requests", f"{asked:.1f} s, {LEASES / asked:.0f} a second", ""],
            [
                f"{full} leases on {full} GPUs, worker ready",
                f"{bound:.1f} s, {full / bound:.0f} a second",
                f"{LEASES - full} wait",
            ],
            [
                "a GPU becomes free -> the next one's worker is ready",
                spread(taken),
                f"plain pods {spread(plain)}: {ratio:.1f}x",
            ],
            ["broker's memory for all this", f"{memory / 2**20:.0f} MiB", ""],
            *(
                [f"{CALM_SECONDS:.0f} calm seconds: {name}", f"{use:.1f} % of a core", ""]
                for name, use in calm
            ),
        ],
    )


async def _pass_on(broker: Broker, full: int) -> float:
    """One lease ends, as an emptied one does; how long until the next one's worker is ready."""
    held = next(one for one in broker.board.live.values() if one.state is LeaseState.ACTIVE)
    actor = Actor(held.user, server=held.server)
    begun = time.perf_counter()
    await broker.service.release(actor, held.id)
    await broker.service.acknowledge(actor, held.id, Acknowledge())

    async def passed() -> int:
        gone = held.id not in broker.board.live
        return await _active(broker) if gone else 0

    await until(passed, full, "the next lease", pause=0.01)
    return time.perf_counter() - begun


async def _calm(me: psutil.Process) -> list[tuple[str, float]]:
    processes = [me, *(one for one in me.children(recursive=True) if one.name() in PROGRAMS)]
    before = [_cpu_seconds(one) for one in processes]
    await asyncio.sleep(CALM_SECONDS)
    used = [_cpu_seconds(one) - was for one, was in zip(processes, before, strict=True)]
    names = ["broker", *(one.name() for one in processes[1:])]
    return [(name, 100 * seconds / CALM_SECONDS) for name, seconds in zip(names, used, strict=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _active(broker: Broker) -> int:
    return sum(one.state is LeaseState.ACTIVE for one in broker.board.live.values())


def _actor(number: int) -> Actor:
    return Actor(f"u{number}", server="")


def _server(number: int) -> dict[str, Any]:
    """A server on a machine; all homes are in one claim, as on a file server."""
    pod = server_pod(f"u{number}", namespace=USERS)
    pod["spec"]["nodeName"] = f"fake-{number % MACHINES}"
    pod["spec"]["tolerations"] = [toleration()]
    for volume in pod["spec"]["volumes"]:
        if "persistentVolumeClaim" in volume:
            volume["persistentVolumeClaim"] = {"claimName": "homes"}
    return pod


def _homes() -> list[dict[str, Any]]:
    room, modes = {"storage": "1Ti"}, ["ReadWriteMany"]
    volume = {
        "capacity": room,
        "accessModes": modes,
        "storageClassName": "",
        "hostPath": {"path": "/homes"},
        "claimRef": {"namespace": USERS, "name": "homes"},
    }
    claim = {
        "accessModes": modes,
        "storageClassName": "",
        "volumeName": "homes",
        "resources": {"requests": room},
    }
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "homes"}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "homes", "namespace": USERS},
            "spec": claim,
        },
    ]


def _plain(number: int) -> dict[str, Any]:
    container = {"name": "worker", "image": "lab:1", "resources": {"limits": {GPU: "1"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"plain-{number}", "namespace": "default"},
        "spec": {"containers": [container], "tolerations": [toleration()]},
    }


def _runs(pod: dict[str, Any]) -> bool:
    leaving = "deletionTimestamp" in pod["metadata"]
    return pod.get("status", {}).get("phase") == "Running" and not leaving


async def _running(api: Api) -> int:
    return sum(_runs(pod) for pod in (await api.list(PODS, USERS)).items)


async def until(count: Callable[[], Awaitable[int]], wanted: int, what: str, *, pause: float = 0.05) -> None:
    """Return when as many are there as wanted."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    found = -1
    while time.monotonic() < deadline:
        found = await count()
        if found == wanted:
            return
        await asyncio.sleep(pause)
    raise AssertionError(f"waited {PATIENCE_SECONDS:.0f} s for {wanted} of {what}; there are {found}")


async def every(items: Any, do: Callable[[Any], Awaitable[Any]]) -> None:
    """Do it for each, some at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> None:
        async with room:
            await do(item)

    await asyncio.gather(*(one(item) for item in items))
