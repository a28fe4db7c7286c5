"""The Kubernetes backend beyond the contract: a cluster that misbehaves, crashes in between, plain words."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gpuhub.backends.base import BackendError, Phase, StartRefused, WorkerOrder, WorkerSeen
from gpuhub.backends.kubernetes.api import NETWORK_POLICIES, PODS, SECRETS, ApiError, Object
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from tests.builders import KEY
from tests.launching import until
from tests.unit.backends.machines import (
    StandInKubelet,
    StandInScheduler,
    ended_status,
    held_up_status,
    running_status,
)
from tests.unit.backends.memorycluster import ClusterInMemory
from tests.unit.backends.running import furnish, listening, settings

LEASE = "7f3c9a0b5d2e4f617f3c9a0b5d2e4f61"
NAME = "gpu-7f3c9a0b5d2e"
RAW = ("raw words", "Insufficient", "nvidia.com", "node(s)", "BackOff", "OOMKilled")


def order(**fields: Any) -> WorkerOrder:
    content: dict[str, Any] = {
        "lease_id": LEASE,
        "user": "ann",
        "server": "",
        "pool": "h100",
        "gpus": 1,
        "device_ids": (),
        "public_key": KEY,
        "host_key": "private",
        "grace_seconds": 5,
        **fields,
    }
    return WorkerOrder(**content)


class World:
    """A cluster in memory, its machine, and a backend that listens to it."""

    def __init__(self, cluster: ClusterInMemory, kubelet: StandInKubelet, backend: KubernetesBackend) -> None:
        self.cluster, self.kubelet, self.backend = cluster, kubelet, backend

    def one(self, plural: str) -> Object:
        return self.cluster.one(plural, NAME, "users")

    def has(self, plural: str) -> bool:
        return (plural, "users", NAME) in self.cluster.objects

    async def seen(self, fits: Callable[[WorkerSeen], object]) -> WorkerSeen:
        async def look() -> WorkerSeen | None:
            with contextlib.suppress(BackendError):
                worker = (await self.backend.observe()).get(LEASE)
                return worker if worker is not None and fits(worker) else None
            return None

        return await until(look, "the worker is seen so")

    async def ready(self) -> WorkerSeen:
        return await self.seen(lambda worker: worker.phase is Phase.READY)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    cluster = ClusterInMemory()
    await furnish(cluster)
    kubelet = StandInKubelet(cluster, "node1")
    async with (
        kubelet.running(),
        StandInScheduler(cluster).running(),
        listening(KubernetesBackend(cluster, settings())) as backend,
    ):
        yield World(cluster, kubelet, backend)


async def test_a_worker_has_the_servers_image_account_and_home_and_none_of_its_secrets(world: World) -> None:
    await world.backend.start(order())
    pod = world.one("pods")
    [container] = pod["spec"]["containers"]
    assert container["image"] == "lab:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {
        volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["spec"]["volumes"]
    } >= {"claim-ann"}
    names = {entry["name"] for entry in container["env"]}
    assert not names & {"JUPYTERHUB_API_TOKEN", "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"}
    assert {"TZ", "GPUHUB_LEASE"} <= names
    assert "a-secret" not in str(pod)
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


async def test_only_its_own_server_reaches_a_worker(world: World) -> None:
    await world.backend.start(order())
    policy = world.one("networkpolicies")["spec"]
    assert policy["podSelector"]["matchLabels"]["gpuhub.io/lease"] == LEASE
    [rule] = policy["ingress"]
    [source] = rule["from"]
    assert source["podSelector"]["matchLabels"]["gpuhub.io/server"] == "ann"
    assert [port["port"] for port in rule["ports"]] == [2222]


async def test_without_a_server_there_is_no_worker_and_a_sentence_says_so(world: World) -> None:
    with pytest.raises(StartRefused, match="Your server does not run"):
        await world.backend.start(order(user="nobody"))
    assert not world.has("secrets")


async def test_a_servers_new_key_reaches_the_worker_at_once(world: World) -> None:
    await world.backend.start(order())
    before = world.one("pods")["metadata"]["annotations"]["gpuhub.io/keys-revision"]
    other = KEY.replace("A", "B")
    await world.backend.start(order(public_key=other))
    assert base64.b64decode(world.one("secrets")["data"]["authorized_key"]).decode().strip() == other
    assert world.one("pods")["metadata"]["annotations"]["gpuhub.io/keys-revision"] != before


@pytest.mark.parametrize("step", [SECRETS, NETWORK_POLICIES, PODS], ids=lambda kind: kind.plural)
async def test_a_start_that_was_cut_is_taken_up_again(world: World, step: Any) -> None:
    world.cluster.refuse["create", step.plural] = ApiError(0, "", "connection lost")
    with pytest.raises(BackendError):
        await world.backend.start(order())
    world.cluster.refuse.clear()
    await world.backend.start(order())
    assert (await world.ready()).address.startswith("tcp:10.9.")
    owner = {"secrets": world.one("secrets"), "networkpolicies": world.one("networkpolicies")}
    for one in owner.values():
        assert one["metadata"]["ownerReferences"][0]["name"] == NAME


async def test_a_cluster_that_is_away_is_not_a_world_without_workers(world: World) -> None:
    await world.backend.start(order())
    await world.ready()
    world.cluster.go_away()

    async def refuses() -> bool:
        try:
            await world.backend.observe()
        except BackendError:
            return True
        return False

    await until(refuses, "the backend says that it cannot see")
    assert await world.backend.server_running("ann", "") is None
    world.cluster.away = False
    assert (await world.ready()).phase is Phase.READY


async def test_what_happened_while_the_history_was_lost_is_seen_afterwards(world: World) -> None:
    await world.backend.start(order())
    await world.ready()
    world.kubelet.paused = True
    world.cluster.cut_watches()
    await world.cluster.delete(PODS, "users", NAME, grace_seconds=0)
    world.cluster.forget_history()
    gone = await world.seen(lambda worker: worker.phase is Phase.EXITED)
    assert gone.message == "The worker was removed from the cluster from outside."


async def test_a_worker_that_was_deleted_by_hand_is_seen_until_it_is_forgotten(world: World) -> None:
    await world.backend.start(order())
    await world.ready()
    await world.cluster.delete(PODS, "users", NAME, grace_seconds=0)
    gone = await world.seen(lambda worker: worker.phase is Phase.EXITED)
    assert gone.message == "The worker was removed from the cluster from outside."
    await world.backend.forget(LEASE)
    assert await world.backend.observe() == {}
    assert not world.has("secrets")
    assert not world.has("networkpolicies")


async def test_a_worker_waits_for_room_in_plain_words_and_starts_when_there_is_some(world: World) -> None:
    await world.backend.start(order(lease_id="a" * 32, user="bob", gpus=2))
    await until(lambda: ready(world.backend, "a" * 32), "the first worker is ready")
    await world.backend.start(order())
    waits = await world.seen(lambda worker: worker.waiting and "free GPU" in worker.message)
    assert waits.phase is Phase.STARTING
    assert not any(raw in waits.message for raw in RAW)
    await world.backend.stop("a" * 32, grace_seconds=1)
    assert not (await world.ready()).waiting


async def ready(backend: KubernetesBackend, lease_id: str) -> bool:
    worker = (await backend.observe()).get(lease_id)
    return worker is not None and worker.phase is Phase.READY


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError"])
async def test_what_holds_a_start_up_is_said_in_plain_words(world: World, reason: str) -> None:
    world.kubelet.act = lambda pod: held_up_status(pod, reason)
    await world.backend.start(order())
    held = await world.seen(lambda worker: worker.message and not worker.waiting)
    assert held.phase is Phase.STARTING
    assert not any(raw in held.message for raw in RAW)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"reason": "OOMKilled", "code": 137}, "more main memory"),
        ({"reason": "Error", "code": 126}, "could not be started in this environment"),
        ({"reason": "Error", "code": 137}, "signal 9"),
        ({"reason": "Completed", "code": 0}, "The worker has ended."),
    ],
)
async def test_an_end_is_told_in_plain_words(world: World, status: dict[str, Any], words: str) -> None:
    await world.backend.start(order())
    await world.ready()
    world.kubelet.act = lambda pod: ended_status(pod, **status)
    ended = await world.seen(lambda worker: worker.phase is Phase.EXITED)
    assert words in ended.message


async def test_an_evicted_worker_says_that_its_machine_ran_short(world: World) -> None:
    await world.backend.start(order())
    await world.ready()
    world.kubelet.act = lambda pod: {**running_status(pod), "phase": "Failed", "reason": "Evicted"}
    ended = await world.seen(lambda worker: worker.phase is Phase.EXITED)
    assert "ran short of memory or disk" in ended.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(403, "Forbidden", "exceeded quota: lab, requested: nvidia.com/gpu=1"), "limit of GPUs"),
        (ApiError(403, "Forbidden", 'violates PodSecurity "restricted:latest"'), "security rules"),
        (ApiError(403, "Forbidden", "User system:sa cannot create pods"), "lacks a right"),
        (ApiError(422, "Invalid", "ValidatingAdmissionPolicy 'x' denied request"), "A rule of the cluster"),
        (ApiError(503, "ServiceUnavailable", "etcdserver: leader changed"), "does not answer"),
    ],
)
async def test_a_cluster_that_refuses_is_told_in_plain_words(
    world: World, error: ApiError, words: str
) -> None:
    world.cluster.refuse["create", "pods"] = error
    with pytest.raises(StartRefused, match=words) as refused:
        await world.backend.start(order())
    assert error.message not in str(refused.value)


async def test_what_somebody_else_has_made_under_our_name_is_left_alone(world: World) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": "users"},
        "data": {},
    }
    await world.cluster.create(SECRETS, "users", body)
    with pytest.raises(BackendError, match="is not of lease"):
        await world.backend.start(order())
    assert world.one("secrets")["data"] == {}


async def test_a_broker_that_does_not_lead_writes_nothing() -> None:
    cluster = ClusterInMemory()
    await furnish(cluster)
    async with listening(KubernetesBackend(cluster, settings(), leads=lambda: False)) as backend:
        with pytest.raises(BackendError, match="another broker leads"):
            await backend.start(order())
        assert await backend.observe() == {}
    assert not {verb for verb, _ in cluster.asked[len(("node", "ann", "bob")) :]} & {
        "create",
        "patch",
        "delete",
        "replace",
    }


async def test_the_next_broker_finds_the_workers_of_the_last_one(world: World) -> None:
    await world.backend.start(order())
    first = await world.ready()
    async with listening(KubernetesBackend(world.cluster, settings())) as next_one:
        assert (await next_one.observe())[LEASE].address == first.address
        await next_one.start(order())
        assert len([key for key in world.cluster.objects if key[0] == "pods" and key[2] == NAME]) == 1


async def test_gpus_of_other_peoples_pods_are_not_on_offer(world: World) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "batch", "namespace": "other"},
        "spec": {
            "nodeName": "node1",
            "containers": [
                {"name": "job", "image": "job:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
            ],
        },
    }
    await world.cluster.create(PODS, "other", foreign)

    async def one_is_left() -> bool:
        [pool] = await world.backend.offers()
        return pool.total == 1

    await until(one_is_left, "the other pod's GPU is not counted")
    await world.cluster.delete(PODS, "other", "batch", grace_seconds=0)

    async def both_again() -> bool:
        [pool] = await world.backend.offers()
        return pool.total == 2

    await until(both_again, "both GPUs are on offer again")


async def test_which_gpus_a_worker_was_given_is_told_when_the_agent_knows() -> None:
    class Given:
        id, index, name, memory_bytes, simulated = "GPU-1", 0, "NVIDIA H100 (simulated)", 80 * 10**9, True

    known: dict[str, tuple[Given, ...]] = {}
    cluster = ClusterInMemory()
    await furnish(cluster)
    async with (
        StandInKubelet(cluster, "node1").running(),
        StandInScheduler(cluster).running(),
        listening(
            KubernetesBackend(
                cluster, settings(), allocations=lambda node, _place, pod: known.get(f"{node}/{pod}")
            )
        ) as backend,
    ):
        await backend.start(order())
        await until(lambda: ready(backend, LEASE), "the worker is ready")
        assert (await backend.observe())[LEASE].device_ids == ()
        known[f"node1/{NAME}"] = (Given(),)
        worker = (await backend.observe())[LEASE]
        assert worker.device_ids == ("GPU-1",)
        assert worker.devices[0].simulated
