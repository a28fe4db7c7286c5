"""From the GPU to the lease's view: driver, kubelet, agent, broker, all as processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gpuhub.telemetry.podresources import KubeletAway, PodGpus, gpus_by_pod
from tests.launching import short_folder, until
from tests.service.agent.conftest import Node
from tests.service.agent.kubelet import running_kubelet

MIB = 1024**2


def said(node: Node, event: str) -> bool:
    return any(line["event"] == event for program in node.programs for line in program.lines())


def used(lease: dict[str, Any]) -> bool:
    return lease["usage"] is not None and lease["usage"]["utilisation_percent"] > 10


async def test_a_lease_learns_its_gpu_and_its_use_from_the_agent(node: Node) -> None:
    node.start_broker()
    await node.broker_answers()
    lease = await node.lease(device=node.gpus.ids[1])
    assert (lease["devices"], lease["usage"], lease["idle_seconds"]) == ([], None, None)
    node.start_agent()
    lease = await node.when(lease, lambda one: one["devices"], "the lease knows its GPU")
    [device] = lease["devices"]
    assert (device["id"], device["index"], device["simulated"]) == (node.gpus.ids[1], 1, True)
    assert "simulated" in device["name"]
    with (
        node.gpus.user(node.gpus.gpu(1), memory_bytes=3 * 10**9, burn=True) as pid,
        node.gpus.user(node.gpus.gpu(0), burn=True),
    ):
        usage = (await node.when(lease, used, "its use is seen"))["usage"]
        assert usage["memory_bytes"] == 3 * 10**9
        assert usage["memory_total_bytes"] == device["memory_bytes"]
        assert usage["simulated"] is True
        assert [process["pid"] for process in usage["processes"]] == [pid]
    await node.when(
        lease, lambda one: not used(one) and one["idle_seconds"] is not None, "it is silent again"
    )
    series = (await node.ask("GET", f"leases/{lease['id']}/usage")).json()
    assert max(series["utilisation_percent"]) > 10
    assert series["times"] == sorted(set(series["times"]))


async def test_an_idle_gpu_is_warned_of_and_never_when_nothing_is_known(node: Node) -> None:
    node.start_broker()
    await node.broker_answers()
    agent = node.start_agent()
    lease = await node.lease(device=node.gpus.ids[0])
    await node.when(lease, lambda one: (one["idle_seconds"] or 0) > 4, "silence is counted")
    node.gpus.break_driver("unknown")
    await node.when(lease, lambda one: one["idle_seconds"] is None, "nothing is known", 60)
    await asyncio.sleep(15)
    seen = await node.see(lease)
    assert (seen["state"], seen["warning"], seen["usage"]) == ("active", None, None)
    assert "Unknown Error" in agent.log() or "no longer answers" in agent.log()
    node.gpus.break_driver(None)
    await node.when(lease, lambda one: one["warning"] is not None, "it is idle, and known to be", 120)
    agent.end()
    await node.when(lease, lambda one: one["warning"] is None, "without an agent nobody is reclaimed", 60)
    await asyncio.sleep(25)
    seen = await node.see(lease)
    assert (seen["state"], seen["warning"]) == ("active", None)


async def test_a_broker_that_was_away_hears_the_agent_again(node: Node) -> None:
    broker = node.start_broker()
    await node.broker_answers()
    node.start_agent()
    lease = await node.lease(device=node.gpus.ids[0])
    await node.when(lease, lambda one: one["usage"] is not None, "its use is known")
    broker.end()
    await until(lambda: said(node, "the broker did not take it"), "the agent says that it is away")
    node.start_broker()
    await node.broker_answers()
    with node.gpus.user(node.gpus.gpu(0), utilisation_percent=64):
        # The played cluster forgot its workers with its process; what agents say is heard all the same.
        await until(lambda: node.programs[1].log().count("the broker knows") == 2, "it is heard again", 60)


async def test_a_kubelet_that_is_away_is_said_and_hides_no_sample(node: Node) -> None:
    node.start_broker()
    await node.broker_answers()
    agent = node.start_agent()
    lease = await node.lease(device=node.gpus.ids[0])
    await node.when(lease, lambda one: one["usage"] is not None, "its use is known")
    node.kubelet.stop()
    await until(lambda: "does not say which pod has which GPU" in agent.log(), "the agent says so", 30)
    with node.gpus.user(node.gpus.gpu(0), utilisation_percent=64):
        await node.when(
            lease, lambda one: (one["usage"] or {}).get("utilisation_percent") == 64, "use is seen"
        )
    assert (await node.see(lease))["devices"], "what was known stays known"
    node.kubelet.start()
    await until(lambda: agent.log().count("the broker knows this node's GPUs") == 2, "all is well again", 40)
    assert "does not say which pod has which GPU" in node.programs[0].log(), (
        "the broker's log tells operators"
    )


async def test_an_agent_on_another_node_is_refused_and_says_so(node: Node) -> None:
    node.start_broker()
    await node.broker_answers()
    agent = node.start_agent(GPUHUB_NODE="node-2")
    await until(lambda: "status 403" in agent.log(), "the agent was refused", 30)
    assert "another node than node-2" in agent.log()
    assert node.token_file.read_text() not in agent.log()


async def test_sigterm_ends_it_at_once_even_while_the_driver_hangs(node: Node) -> None:
    node.gpus.break_driver("timeout 300")
    agent = node.start_agent()
    await until(lambda: said(node, "the agent looks"), "the agent looks")
    await asyncio.sleep(1)
    assert agent.end() < 1.5
    assert agent.process.returncode == 0


async def test_it_needs_no_broker_no_driver_and_no_kubelet_to_live(node: Node) -> None:
    node.kubelet.stop()
    node.gpus.break_driver("not-loaded")
    agent = node.start_agent()
    await until(lambda: said(node, "the broker did not take it"), "the agent goes on")
    assert agent.process.poll() is None


async def test_its_memory_is_small_and_does_not_grow_while_the_broker_is_away(node: Node) -> None:
    agent = node.start_agent()
    await until(lambda: said(node, "the broker did not take it"), "the agent goes on")
    await asyncio.sleep(10)
    first = agent.rss_bytes
    await asyncio.sleep(25)
    print(f"the agent's memory: {first / MIB:.0f} MiB, later {agent.rss_bytes / MIB:.0f} MiB")
    assert first < 128 * MIB
    assert agent.rss_bytes < first + 4 * MIB


def test_a_missing_setting_is_one_line_and_exit_code_2(node: Node) -> None:
    agent = node.start_agent(GPUHUB_NODE="")
    assert agent.process.wait(20) == 2
    [line] = agent.lines()
    assert (line["level"], line["why"]) == ("error", "the environment variable GPUHUB_NODE is missing")


def test_it_prints_one_report_for_who_looks_for_the_fault(node: Node) -> None:
    agent = node._start(
        "print",
        *("-P", "-m", "gpuhub.telemetry.agent", "--print"),
        env=node.gpus.environment
        | {"GPUHUB_NODE": "x", "GPUHUB_BROKER_URL": "http://x", "GPUHUB_POD_RESOURCES": "/none"},
    )
    assert agent.process.wait(20) == 0
    [report] = agent.lines()
    assert [device["id"] for device in report["devices"]] == node.gpus.ids


# --- the kubelet's API -------------------------------------------------------------------------------


def test_pods_and_their_gpus_are_read_from_the_kubelets_own_messages() -> None:
    with short_folder() as folder, running_kubelet(folder / "kubelet.sock") as kubelet:
        assert gpus_by_pod(kubelet.socket) == ()
        kubelet.pods = {
            ("users", "gpu-1"): ["GPU-1", "GPU-0"],
            ("users", "none"): [],
            ("users", "shared"): ["GPU-2::7"],
        }
        assert gpus_by_pod(kubelet.socket) == (
            PodGpus("users", "gpu-1", ("GPU-1", "GPU-0")),
            PodGpus("users", "shared", ("GPU-2::7",)),
        )
        kubelet.pods = {
            ("users", f"gpu-{n}-{'x' * 200}"): [f"GPU-{n}-{m}" for m in range(8)] for n in range(3000)
        }
        assert len(gpus_by_pod(kubelet.socket)) == 3000
        kubelet.stop()
        kubelet.start()
        assert len(gpus_by_pod(kubelet.socket)) == 3000, "after a restart the socket is another one"


def test_a_kubelet_that_refuses_or_is_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(KubeletAway, match="UNAVAILABLE"):
        gpus_by_pod(tmp_path / "none.sock")
    with short_folder() as folder, running_kubelet(folder / "kubelet.sock") as kubelet:
        kubelet.hang.set()
        with pytest.raises(KubeletAway, match="RESOURCE_EXHAUSTED"):
            gpus_by_pod(kubelet.socket)
    began = time.monotonic()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KubeletAway):
        gpus_by_pod(tmp_path / "pipe")
    assert time.monotonic() - began < 10
