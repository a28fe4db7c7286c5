"""What a worker waits for: a home on one machine, a queue of the cluster, a machine that is being started."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpuhub.backends.base import Phase, StartRefused
from gpuhub.backends.kubernetes import reasons
from gpuhub.backends.kubernetes.api import NODES, PODS
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from gpuhub.backends.kubernetes.seen import own_pod
from tests.builders import KEY
from tests.launching import until
from tests.unit.backends.machines import StandInKubelet, StandInScheduler, happen, node, server_pod
from tests.unit.backends.memorycluster import ClusterInMemory
from tests.unit.backends.running import listening, settings
from tests.unit.backends.test_backend import LEASE, NAME, World, order, ready

KUEUE = {"name": "h100", "admission": "kueue", "queue": "research", "total": 8}
OTHERS = [letter * 32 for letter in "abc"]


@contextlib.asynccontextmanager
async def world(*nodes: tuple[str, int], servers: dict[str, str], **changes: Any) -> AsyncIterator[World]:
    """Machines with GPUs, and where each person's server runs."""
    cluster = ClusterInMemory()
    for name, gpus in nodes:
        machine = node(name, gpus)
        if not gpus:
            del machine["status"]["allocatable"]["nvidia.com/gpu"]
            machine["status"]["allocatable"]["nvidia.com/other"] = "0"
        await cluster.create(NODES, None, machine)
    for user, place in servers.items():
        pod = server_pod(user)
        pod["spec"]["nodeName"] = place
        await cluster.create(PODS, "users", pod)
    kubelet = StandInKubelet(cluster, *(name for name, _ in nodes))
    async with (
        kubelet.running(),
        StandInScheduler(cluster).running(),
        listening(KubernetesBackend(cluster, settings(**changes))) as backend,
    ):
        yield World(cluster, kubelet, backend)


# --- a home that one machine at a time can have


async def test_a_worker_goes_where_its_server_is_though_another_machine_is_free() -> None:
    one_home = {"home_access_mode": "ReadWriteOnce"}
    async with world(("node1", 1), ("node2", 1), servers={"ann": "node2"}, **one_home) as place:
        await place.backend.start(order())
        await place.ready()
        assert place.one("pods")["spec"]["nodeName"] == "node2"


async def test_a_worker_that_waits_for_its_servers_machine_says_so_and_starts_when_it_is_free() -> None:
    one_home = {"home_access_mode": "ReadWriteOnce"}
    servers = {"ann": "node1", "bob": "node1"}
    async with world(("node1", 1), ("node2", 1), servers=servers, **one_home) as place:
        await place.backend.start(order(lease_id=OTHERS[0], user="bob"))
        await until(lambda: ready(place.backend, OTHERS[0]), "bob's worker is ready")
        await place.backend.start(order())
        waits = await place.seen(lambda worker: worker.message == reasons.PINNED)
        assert (waits.phase, waits.waiting) == (Phase.STARTING, True)
        assert "the machine where your server runs" in waits.message
        await place.backend.stop(OTHERS[0], grace_seconds=1)
        assert not (await place.ready()).waiting


async def test_a_server_on_a_machine_without_such_a_gpu_is_told_so_instead_of_waiting_for_ever() -> None:
    one_home = {"home_access_mode": "ReadWriteOnce"}
    async with world(("cpu1", 0), ("node1", 1), servers={"ann": "cpu1"}, **one_home) as place:
        with pytest.raises(StartRefused, match="runs on a machine without such a GPU") as refused:
            await place.backend.start(order())
        assert "Stop your server and start it again" in str(refused.value)
        assert not place.has("pods")
        assert not place.has("secrets")


async def test_a_home_that_every_machine_can_have_ties_nobody() -> None:
    async with world(("cpu1", 0), ("node1", 1), servers={"ann": "cpu1"}) as place:
        await place.backend.start(order())
        await place.ready()
        assert place.one("pods")["spec"]["nodeName"] == "node1"


def told(condition: str, *, pinned: bool = False) -> str:
    """What the owner reads where the scheduler says this."""
    pod = server_pod()
    pod["metadata"] |= {"labels": {"component": "gpuhub-worker", "gpuhub.io/lease": LEASE}, "uid": "1"}
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": condition}
    pod["status"] = {"phase": "Pending", "conditions": [said]}
    seen = own_pod(pod)
    return reasons.start(seen, pinned=pinned).message  # type: ignore[arg-type]


OTHER = "4 node(s) didn't match Pod's node affinity/selector"


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (
            f"0/5 nodes are available: 1 Insufficient nvidia.com/gpu, {OTHER}.",
            "a free GPU on the machine where",
        ),
        (f"0/5 nodes are available: 1 Insufficient memory, {OTHER}.", "room on the machine where"),
        (
            "0/5 nodes are available: 1 node(s) were unschedulable, 4 node(s) didn't satisfy",
            "No machine with",
        ),
    ],
)
def test_what_a_pinned_worker_waits_for_is_told_apart(condition: str, words: str) -> None:
    assert words in told(condition, pinned=True)
    assert "where your server runs" not in told(condition)


# --- a queue of the cluster


class Gates(ClusterInMemory):
    """Kueue's webhook: a new pod with the label of a queue is held back."""

    async def create(self, kind: Any, namespace: str | None, body: Any) -> Any:
        if "kueue.x-k8s.io/queue-name" in (body["metadata"].get("labels") or {}):
            body = {
                **body,
                "spec": {**body["spec"], "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
            }
        return await super().create(kind, namespace, body)

    async def admit(self, name: str) -> None:
        """Kueue lets one through, onto the machines that it chose."""
        spec = {"schedulingGates": None, "nodeSelector": {"kubernetes.io/hostname": "node1"}}
        await self.patch(PODS, "users", name, {"spec": spec})


@pytest.fixture
async def queue() -> AsyncIterator[World]:
    cluster = Gates()
    await cluster.create(NODES, None, node("node1", 8))
    for user in ("ann", "bob"):
        pod = server_pod(user)
        pod["spec"]["nodeName"] = "node1"
        await cluster.create(PODS, "users", pod)
    kubelet = StandInKubelet(cluster, "node1")
    async with (
        kubelet.running(),
        StandInScheduler(cluster).running(),
        listening(KubernetesBackend(cluster, settings(pools=[KUEUE]))) as backend,
    ):
        yield World(cluster, kubelet, backend)


async def test_a_worker_stands_in_kueues_queue_and_is_no_failure_there(queue: World) -> None:
    await queue.backend.start(order())
    waits = await queue.seen(lambda worker: "queue" in worker.message)
    assert (waits.phase, waits.waiting) == (Phase.STARTING, True)
    assert waits.message == "It waits for its turn in the cluster's queue; no other of this hub is before it."
    assert queue.one("pods")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"


async def test_a_gated_pod_is_a_position_which_falls_when_one_ahead_is_let_through(queue: World) -> None:
    for lease_id in OTHERS:
        await queue.backend.start(order(lease_id=lease_id, user="bob", public_key=KEY))
    # Kubernetes tells whole seconds: what came in the same one is told apart by name.
    for number, lease_id in enumerate(OTHERS):
        name = f"gpu-{lease_id[:12]}"
        at = {"metadata": {"creationTimestamp": f"2026-03-02T09:00:0{number}Z"}}
        await queue.cluster.patch(PODS, "users", name, at)
    await queue.backend.start(order())
    assert "3 of this hub are before it" in (await queue.seen(lambda one: "3 of" in one.message)).message
    await queue.cluster.admit(f"gpu-{OTHERS[0][:12]}")
    await queue.seen(lambda one: "2 of this hub are before it" in one.message)
    await queue.cluster.admit(f"gpu-{OTHERS[1][:12]}")
    await queue.seen(lambda one: "1 of this hub is before it" in one.message)
    await queue.cluster.admit(NAME)
    assert (await queue.ready()).message == ""


async def test_whoever_gives_up_leaves_the_queue_at_once(queue: World) -> None:
    await queue.backend.start(order())
    await queue.seen(lambda worker: worker.waiting)
    await queue.backend.stop(LEASE, grace_seconds=60)
    await queue.seen(lambda worker: worker.phase is Phase.EXITED)
    assert not queue.has("pods")


async def test_what_kueue_takes_away_is_told_in_plain_words(queue: World) -> None:
    await queue.backend.start(order())
    await queue.seen(lambda worker: worker.waiting)
    await queue.cluster.admit(NAME)
    await queue.ready()
    said = {"type": "TerminationTarget", "status": "True", "reason": "WorkloadEvictedDueToPreempted"}
    pod = queue.one("pods")
    conditions = [*pod["status"]["conditions"], said | {"message": "raw words"}]
    await queue.cluster.patch(PODS, "users", NAME, {"status": {"conditions": conditions}})
    await queue.cluster.delete(PODS, "users", NAME, grace_seconds=0)
    gone = await queue.seen(lambda worker: worker.phase is Phase.EXITED)
    assert gone.message == reasons.PREEMPTED


async def test_a_queue_offers_what_the_operator_said_whatever_the_machines_have(queue: World) -> None:
    [offer] = await queue.backend.offers()
    assert offer.total == 8


# --- a machine that is being started


async def test_a_machine_that_is_being_started_is_waited_for_with_its_reason() -> None:
    pool = {"name": "h100", "admission": "scheduler", "total": 8}
    async with world(("node1", 1), servers={"ann": "node1", "bob": "node1"}, pools=[pool]) as place:
        await place.backend.start(order(lease_id=OTHERS[0], user="bob"))
        await until(lambda: ready(place.backend, OTHERS[0]), "bob's worker is ready")
        await place.backend.start(order())
        await place.seen(lambda worker: "free GPU" in worker.message)
        await happen(place.cluster, place.one("pods"), "TriggeredScaleUp")
        grows = await place.seen(lambda worker: worker.message == reasons.GROWS)
        assert grows.waiting
