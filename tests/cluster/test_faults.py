"""What goes wrong in a cluster, while people work: nothing is lost, and it is told in plain words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.addresses import NODE
from tests.cluster.cluster import Cluster
from tests.cluster.gpus import RESOURCE
from tests.cluster.people import SAME, VALUE, goes_on, held, reconnected
from tests.cluster.pods import probe_pod
from tests.cluster.release import RELEASE, USERS, Release
from tests.person import Person, Tab, eventually

RAW = ("Insufficient", "forbidden", "nvidia.com", "exceeded", "denied", "0/1 nodes", "ValidatingAdmission")
"""Words that people must never read."""


async def notice(tab: Tab, words: str, seconds: float = 180) -> str:
    """Wait until the notebook is back on its server and says why; returns what it says."""

    async def told() -> str:
        status = await tab.status()
        said = [one["message"] for one in status["notices"] if words in one["message"]]
        return said[-1] if said and status["placement"] == "server" else ""

    return str(await eventually(told, f"the notebook to come back and say {words!r}", seconds))


async def waiting(tab: Tab, words: str) -> str:
    """Wait until the switch says ``words``, and nothing raw; returns all that it says."""

    async def told() -> str:
        move = (await tab.status())["move"] or {}
        message = f"{move.get('message')} {move.get('hint') or ''}"
        return message if words in message else ""

    said = str(await eventually(told, f"the switch to say {words!r}", 60))
    assert not [word for word in RAW if word in said], said
    return said


async def cancelled(tab: Tab, ann: Person) -> None:
    """Cancel the move; returns when nothing is waited for any more."""
    await ann.server_api("DELETE", f"kernels/{tab.kernel}/move")
    status = await tab.settled()
    assert (status["placement"], status["move"]["step"]) == ("server", "cancelled")

    async def nothing_asked() -> bool:
        return await ann.lease() is None

    await eventually(nothing_asked, "the request to be gone")


@contextlib.contextmanager
def applied(cluster: Cluster, *objects: dict[str, Any]) -> Iterator[None]:
    """Objects of the cluster for the time of a block."""
    cluster.kubectl.apply(list(objects))
    try:
        yield
    finally:
        for one in objects:
            meta = one["metadata"]
            where = ["-n", meta["namespace"]] if "namespace" in meta else []
            cluster.kubectl("delete", one["kind"], meta["name"], *where, "--now", "--ignore-not-found")


# --- the worker, or its machine, goes


async def test_a_drained_machine_gives_back_even_what_was_made_on_the_gpu(gpuhub: Release, tab: Tab) -> None:
    await tab.flip("worker")
    await tab.run("made_on_the_gpu = list(range(1000))")
    (worker,) = gpuhub.workers()
    kubectl = gpuhub.kubectl
    kubectl("cordon", NODE)
    try:
        _evict(gpuhub, worker)
        said = await notice(tab, "maintenance")
    finally:
        kubectl("uncordon", NODE)
    assert await tab.value("sum(made_on_the_gpu)") == "499500", said
    assert await tab.value(SAME) == VALUE


async def test_a_kernel_out_of_memory_costs_the_cell_and_what_came_after_the_last_save(tab: Tab) -> None:
    await tab.flip("worker")
    assert await tab.value(SAME) == VALUE
    cell = await tab.run("hog = [bytearray(b'x' * 2**26) for _ in range(100)]", patience_seconds=180)
    assert cell.status == "error", cell.text
    assert "its memory was full" in cell.text

    async def again() -> bool:
        found = await tab.run(f"print(repr({SAME}))")
        return found.status == "ok" and found.text.strip() == VALUE

    await eventually(again, "the notebook to go on with what was saved", 180)


async def test_a_kubelet_away_for_a_while_is_not_noticed(cluster: Cluster, tab: Tab) -> None:
    await tab.flip("worker")

    async def silence() -> None:
        await asyncio.to_thread(cluster.kill, "kubelet")
        # Less than what it takes to call the node lost: gpuhub's own door is on it too.
        await asyncio.sleep(25)
        await asyncio.to_thread(cluster.start, "kubelet")

    await goes_on(tab, asyncio.create_task(silence()))
    await tab.flip("server")
    assert await tab.value(SAME) == VALUE


async def test_a_new_device_plugin_and_a_gpu_that_breaks_cost_nobody_who_has_another(
    cluster: Cluster, ann: Person, tab: Tab
) -> None:
    await tab.flip("worker")

    async def devices() -> set[str]:
        lease = await ann.lease()
        return {device["id"] for device in (lease or {}).get("devices", [])}

    (mine,) = await eventually(devices, "the agent to say which GPU it is")
    other = next(index for index, gpu in enumerate(cluster.gpus.ids()) if gpu != mine)
    await goes_on(tab, asyncio.create_task(asyncio.to_thread(cluster.restart, "deviceplugin")))
    cluster.gpus.set_health(other, False)
    try:

        async def offered() -> bool:
            (pool,) = (await ann.broker("GET", "pools"))["pools"]
            return pool["total"] == 3

        await eventually(offered, "three GPUs on offer")
        assert await tab.value(SAME) == VALUE
    finally:
        cluster.gpus.set_health(other, True)
    await tab.flip("server")


# --- the cluster has no room, or does not want the worker


async def test_without_room_the_notebook_waits_in_plain_words_until_there_is_some(
    cluster: Cluster, namespace: str, ann: Person, tab: Tab
) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "others", gpus=4))
    cluster.wait_ready(namespace, "others")

    async def counted() -> bool:
        (pool,) = (await ann.broker("GET", "pools"))["pools"]
        return pool["free"] == 0

    await eventually(counted, "the broker to see that others hold the GPUs")
    await tab.ask("worker")
    await waiting(tab, "Your place is kept")
    lease = await ann.lease()
    assert lease is not None
    assert (lease["state"], lease["position"]["place"]) == ("queued", 1)
    assert await tab.value(SAME) == VALUE, "waiting holds nothing up"
    await cancelled(tab, ann)

    await tab.ask("worker")
    await waiting(tab, "Your place is kept")
    cluster.kubectl("delete", "pod", "others", "-n", namespace, "--now")
    status = await tab.settled()
    assert status["placement"] == "worker", status
    assert await tab.value(SAME) == VALUE


def _quota() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-gpus", "namespace": USERS},
        "spec": {"hard": {f"requests.{RESOURCE}": "0"}},
    }


def _rule() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "t-no-workers"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ]
            },
            "validations": [
                {"expression": "!object.metadata.name.startsWith('gpu-')", "message": "no workers today"}
            ],
        },
    }


def _binding() -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "t-no-workers"},
        "spec": {"policyName": "t-no-workers", "validationActions": ["Deny"]},
    }


@pytest.mark.parametrize(
    ("objects", "words"),
    [([_quota()], "limit of GPUs for this hub is used up"), ([_rule(), _binding()], "rule of the cluster")],
    ids=["a quota", "an admission rule"],
)
async def test_a_refusal_of_the_cluster_is_said_in_words_and_ends_when_it_does(
    cluster: Cluster, ann: Person, tab: Tab, objects: list[dict[str, Any]], words: str
) -> None:
    with applied(cluster, *objects):
        await asyncio.sleep(2)  # until the API server heeds them
        await tab.ask("worker")
        await waiting(tab, words)
        assert await tab.value(SAME) == VALUE
        await cancelled(tab, ann)
        await tab.ask("worker")
        await waiting(tab, words)
    status = await tab.settled()
    assert status["placement"] == "worker", status
    assert await tab.value(SAME) == VALUE


# --- the cluster's own parts


async def test_an_api_server_away_for_a_minute_costs_nobody_anything(
    cluster: Cluster, ann: Person, bob: Person, tab: Tab
) -> None:
    await tab.flip("worker")
    before = await held(ann)
    his = await bob.open("b.ipynb")
    await his.run("x = 41")
    cluster.kill("kube-apiserver")
    try:
        await his.ask("worker")
        for _ in range(30):
            assert await tab.value(SAME) == VALUE
            assert await his.value("x") == "41"
            await asyncio.sleep(2)
        assert (await his.status())["placement"] == "server"
    finally:
        cluster.start("kube-apiserver")
    status = await his.settled()
    assert status["placement"] == "worker", status
    assert await his.value("x") == "41"
    assert await held(ann) == before
    await tab.flip("server")
    assert await tab.value(SAME) == VALUE


async def test_a_slow_store_of_the_cluster_is_waited_for(cluster: Cluster, tab: Tab) -> None:
    await tab.ask("worker")
    for _ in range(4):
        cluster.processes.pause("etcd")
        await asyncio.sleep(2)
        cluster.processes.resume("etcd")
        await asyncio.sleep(1)
    status = await tab.settled(180)
    assert status["placement"] == "worker", status
    assert await tab.value(SAME) == VALUE


# --- gpuhub's own parts


async def test_all_parts_lost_at_once_cost_the_connection_and_nothing_else(
    gpuhub: Release, ann: Person, tab: Tab
) -> None:
    await tab.flip("worker")
    await tab.run("made_on_the_gpu = list(range(1000))")
    before = await held(ann)
    await asyncio.gather(*(asyncio.to_thread(gpuhub.lose, part) for part in ("hub", "broker", "proxy")))
    again = await reconnected(tab)
    assert await held(ann) == before
    assert await again.value("sum(made_on_the_gpu)") == "499500"
    await again.flip("server")
    assert await again.value("sum(made_on_the_gpu)") == "499500"


async def test_of_two_brokers_one_leads_and_nobody_notices(gpuhub: Release, ann: Person, tab: Tab) -> None:
    kubectl = gpuhub.kubectl
    await tab.flip("worker")

    async def two() -> None:
        await asyncio.to_thread(kubectl, "scale", "deploy/broker", "-n", RELEASE, "--replicas=2")
        await asyncio.sleep(20)

    try:
        await goes_on(tab, asyncio.create_task(two()))
        pods = kubectl.list("pod", RELEASE, "app.kubernetes.io/component=broker")
        assert len(pods) == 2
        await tab.flip("server")
        await ann.broker_release()
        await tab.flip("worker")
        assert len(gpuhub.workers()) == 1
        assert await tab.value(SAME) == VALUE
    finally:
        kubectl("scale", "deploy/broker", "-n", RELEASE, "--replicas=1")
        kubectl("rollout", "status", "deploy/broker", "-n", RELEASE, "--timeout=120s")


# --- what the tests do


def _evict(gpuhub: Release, pod: str) -> None:
    """Ask as `kubectl drain` does, for this one pod: the rest of gpuhub is on the same machine."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": USERS},
    }
    path = f"/api/v1/namespaces/{USERS}/pods/{pod}/eviction"
    gpuhub.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
