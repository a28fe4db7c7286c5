"""With a namespace per person: ours have our label, and labels of pods mean something only there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gpuhub.backends.base import StartRefused
from gpuhub.backends.kubernetes.api import NAMESPACES, NODES, PODS, Object
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from tests.launching import until
from tests.unit.backends.machines import StandInKubelet, StandInScheduler, node, server_pod
from tests.unit.backends.memorycluster import ClusterInMemory
from tests.unit.backends.running import listening, settings
from tests.unit.backends.test_backend import LEASE, NAME, World, order

ANNS = "gpuhub-user-ann"


def namespace(name: str, hub: str | None = "gpuhub") -> Object:
    labels = {} if hub is None else {"gpuhub.io/hub": hub}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def server(place: str, *, user: str = "ann") -> Object:
    pod = server_pod(user, namespace=place)
    pod["spec"]["nodeName"] = "node1"
    return pod


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One machine with two GPUs, and Ann's server in her own namespace."""
    cluster = ClusterInMemory()
    await cluster.create(NODES, None, node("node1", 2))
    await cluster.create(NAMESPACES, None, namespace(ANNS))
    await cluster.create(NAMESPACES, None, namespace("team-eve", None))
    await cluster.create(NAMESPACES, None, namespace("other-hubs", "gpuhub-two"))
    await cluster.create(PODS, ANNS, server(ANNS))
    kubelet = StandInKubelet(cluster, "node1")
    async with (
        kubelet.running(),
        StandInScheduler(cluster).running(),
        listening(KubernetesBackend(cluster, settings(users_namespace=None))) as backend,
    ):
        yield World(cluster, kubelet, backend)


async def test_a_worker_lives_beside_its_server(world: World) -> None:
    await world.backend.start(order())
    await world.ready()
    for plural in ("pods", "secrets", "networkpolicies"):
        assert world.cluster.one(plural, NAME, ANNS)
    assert await world.backend.server_running("ann", "") is True


@pytest.mark.parametrize("place", ["team-eve", "other-hubs"])
async def test_a_pod_that_calls_itself_somebodys_server_elsewhere_is_none(world: World, place: str) -> None:
    await world.cluster.create(PODS, place, server(place, user="bob"))
    newer = server(place)
    newer["metadata"]["creationTimestamp"] = "2099-01-01T00:00:00Z"
    await world.cluster.create(PODS, place, newer)
    await world.backend.start(order())
    await world.ready()
    assert world.cluster.one("pods", NAME, ANNS), "Ann's own server is the one that counts"
    with pytest.raises(StartRefused, match="Your server does not run"):
        await world.backend.start(order(lease_id="b" * 32, user="bob"))
    assert await world.backend.server_running("bob", "") is False


async def test_a_pod_that_calls_itself_a_worker_elsewhere_is_none_but_its_gpu_is_gone(world: World) -> None:
    forged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": NAME,
            "namespace": "team-eve",
            "labels": {
                "component": "gpuhub-worker",
                "app.kubernetes.io/part-of": "gpuhub",
                "gpuhub.io/lease": LEASE,
            },
        },
        "spec": {
            "nodeName": "node1",
            "containers": [
                {"name": "worker", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
            ],
        },
    }
    await world.cluster.create(PODS, "team-eve", forged)

    async def one_is_left() -> bool:
        [pool] = await world.backend.offers()
        return pool.total == 1

    await until(one_is_left, "the forged worker's GPU is not on offer")
    assert await world.backend.observe() == {}
    await world.backend.start(order())
    assert (await world.ready()).address is not None
    assert world.cluster.one("pods", NAME, "team-eve")["spec"] == forged["spec"]


async def test_our_own_workers_gpus_are_counted_once(world: World) -> None:
    await world.backend.start(order(gpus=2))
    await world.ready()

    async def both() -> bool:
        [pool] = await world.backend.offers()
        return pool.total == 2

    await until(both, "both GPUs are ours")


async def test_a_namespace_that_is_made_later_counts_from_then(world: World) -> None:
    place = "gpuhub-user-bob"
    await world.cluster.create(PODS, place, server(place, user="bob"))
    with pytest.raises(StartRefused):
        await world.backend.start(order(user="bob"))
    await world.cluster.create(NAMESPACES, None, namespace(place))

    async def runs() -> bool:
        return await world.backend.server_running("bob", "") is True

    await until(runs, "the namespace is known")
    await world.backend.start(order(user="bob"))
    assert (await world.ready()).address is not None
