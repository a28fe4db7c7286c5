"""The node agent where it belongs: a DaemonSet beside a real kubelet, without rights, on a node with GPUs."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.cluster.cluster import Cluster
from tests.cluster.nvml.use import USE
from tests.cluster.pods import probe_pod
from tests.cluster.release import RELEASE, USERS, Release
from tests.cluster.waiting import until
from tests.person import Person, eventually

HUB_IMAGE = "localhost/gpuhub-hub:dev"
PYTHON = "/opt/gpuhub/bin/python"
NODE = "node1"
COMPUTE = """
held = use_gpu(3_000_000_000)
def compute(seconds):
    import time
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10000))
"""


def report(gpuhub: Release) -> dict[str, Any]:
    """What the agent sees at this moment, from inside its container."""
    words = [PYTHON, "-P", "-m", "gpuhub.telemetry.agent", "--print"]
    found: dict[str, Any] = json.loads(gpuhub.cluster.run_in(RELEASE, gpuhub.pod("agent"), *words))
    return found


def agents_log(gpuhub: Release) -> str:
    return gpuhub.kubectl("logs", "-n", RELEASE, gpuhub.pod("agent"), "--tail=50")


def gpu_pod(namespace: str, name: str, gpus: int = 1) -> dict[str, Any]:
    """A pod that holds GPUs and uses the first of them."""
    program = USE + COMPUTE + "while True: compute(10)"
    pod = probe_pod(namespace, name, PYTHON, "-c", program, gpus=gpus)
    pod["spec"]["containers"][0]["image"] = HUB_IMAGE
    return pod


def test_it_says_which_pod_has_which_gpu_and_whose_the_processes_are(
    gpuhub: Release, cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl.apply(gpu_pod(namespace, "computes", gpus=2))
    uid = cluster.wait_ready(namespace, "computes")["metadata"]["uid"]

    def seen() -> dict[str, Any] | None:
        found = report(gpuhub)
        used = [one for one in found["looks"][0]["samples"] if one["processes"]]
        return found if used else None

    found = until(seen, "the agent to see the process", 60, lambda: agents_log(gpuhub))
    assert "problem" not in found, found["problem"]
    assert [device["id"] for device in found["devices"]] == cluster.gpus.ids()
    assert all(device["simulated"] and "simulated" in device["name"] for device in found["devices"])
    [pod] = [one for one in found["allocations"] if one["namespace"] == namespace]
    assert pod["pod"] == "computes"
    said = cluster.run_in(namespace, "computes", "printenv", "NVIDIA_VISIBLE_DEVICES").strip()
    assert sorted(pod["devices"]) == sorted(said.split(","))
    [used] = [one for one in found["looks"][0]["samples"] if one["processes"]]
    assert used["device"] == said.split(",")[0]
    [process] = used["processes"]
    assert process["pod_uid"] == uid, "known by its control group"
    assert (process["memory_bytes"], process["name"][:6]) == (3_000_000_000, "python")


def test_the_broker_hears_it(gpuhub: Release) -> None:
    until(
        lambda: "the broker knows this node's GPUs" in agents_log(gpuhub),
        "the agent to be heard",
        60,
        lambda: agents_log(gpuhub),
    )


def push(gpuhub: Release, token: str, node: str = NODE) -> int:
    """Send a report from outside, through the proxy."""
    url = f"{gpuhub.url}services/gpu/api/v1/nodes/{node}/samples"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(url, json={}, headers=headers, timeout=20).status_code


def make_token(gpuhub: Release, account: str, *words: str, namespace: str = RELEASE) -> str:
    return gpuhub.kubectl("create", "token", account, "-n", namespace, *words).strip()


def test_only_the_agent_of_a_node_speaks_for_it(gpuhub: Release) -> None:
    ours = ("--audience", "gpuhub-broker")
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", gpuhub.pod("agent"))
    assert push(gpuhub, "") == 401
    assert push(gpuhub, "rubbish") == 401
    assert push(gpuhub, gpuhub.admin_token) == 401, "an operator is no node"
    assert push(gpuhub, make_token(gpuhub, "agent", *bound)) == 401, "made for somebody else"
    assert push(gpuhub, make_token(gpuhub, "default", *ours, namespace=USERS)) == 403
    assert push(gpuhub, make_token(gpuhub, "hub", *ours)) == 403
    assert push(gpuhub, make_token(gpuhub, "agent", *ours)) == 403, "bound to no pod, so to no node"
    assert push(gpuhub, make_token(gpuhub, "agent", *ours, *bound), node="node2") == 403
    assert push(gpuhub, make_token(gpuhub, "agent", *ours, *bound)) == 204


def test_it_has_no_rights_in_the_cluster(gpuhub: Release) -> None:
    who = f"system:serviceaccount:{RELEASE}:agent"
    for what in (("get", "pods"), ("list", "nodes"), ("get", "secrets"), ("create", "pods")):
        done = gpuhub.kubectl.run("auth", "can-i", *what, "--as", who, "-A")
        assert done.stdout.strip() == "no", what


async def test_a_lease_shows_the_use_of_the_gpu_that_the_cluster_chose(gpuhub: Release) -> None:
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, "ursula") as ursula:
        await ursula.start_server()
        tab = await ursula.open("use.ipynb")
        await tab.flip("worker")
        assert (await tab.run(USE + COMPUTE)).status == "ok"
        computing = await tab.submit("compute(40)")

        async def used() -> dict[str, Any] | None:
            lease = await ursula.lease()
            usage = (lease or {}).get("usage")
            return lease if usage and usage["utilisation_percent"] > 10 else None

        lease = await eventually(used, "the lease to show use")
        [device] = lease["devices"]
        assert device["id"] in gpuhub.cluster.gpus.ids()
        assert (device["simulated"], lease["usage"]["simulated"]) == (True, True)
        assert lease["usage"]["memory_bytes"] == 3_000_000_000
        assert len(lease["usage"]["processes"]) == 1
        await tab.result(computing)

        async def silent() -> bool:
            found = await ursula.lease()
            return found is not None and (found["idle_seconds"] or 0) > 5

        await eventually(silent, "the GPU to be silent again")
        broken = gpuhub.cluster.gpus.state / "driver"
        broken.write_text("unknown")
        try:

            async def unknown() -> bool:
                found = await ursula.lease()
                return found is not None and (found["usage"], found["idle_seconds"]) == (None, None)

            await eventually(unknown, "nothing to be known of it")
            assert "Unknown Error" in agents_log(gpuhub) or "no longer answers" in agents_log(gpuhub)
        finally:
            broken.unlink()
        await eventually(silent, "the driver to be asked again")
        await ursula.broker_release()
        await ursula.stop_server()
