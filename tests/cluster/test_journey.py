"""The promise, kept on a real cluster: notebooks move onto GPUs and back, whatever falls over."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.people import DEVICE, SAME, SET, VALUE, goes_on, reconnected
from tests.cluster.release import PARTS, RELEASE, USERS, Release
from tests.person import Person, Tab, eventually


async def test_helm_test_makes_the_whole_journey(gpuhub: Release) -> None:
    said = await asyncio.to_thread(
        gpuhub.cluster.helm, "test", RELEASE, "-n", RELEASE, "--logs", "--timeout", "300s"
    )
    assert "The journey works." in said
    assert "Find the variable there" in said


async def test_two_people_move_onto_different_gpus_and_back_with_their_variables(
    gpuhub: Release, ann: Person, bob: Person
) -> None:
    tabs = [await ann.open("a.ipynb"), await bob.open("b.ipynb")]
    for tab in tabs:
        assert (await tab.run(SET)).status == "ok"
        assert await tab.value(DEVICE) == "'void'"
    await asyncio.gather(*(tab.flip("worker") for tab in tabs))
    devices = {await tab.value(DEVICE) for tab in tabs}
    assert len(devices) == 2
    assert {device.strip("'") for device in devices} <= set(gpuhub.cluster.gpus.ids())
    for tab in tabs:
        assert await tab.value(SAME) == VALUE
    assert len(gpuhub.workers()) == 2
    for tab in tabs:
        await tab.flip("server")
        assert await tab.value(SAME) == VALUE
        assert await tab.value(DEVICE) == "'void'"
    for somebody in (ann, bob):
        await somebody.broker_release()

    async def gone() -> bool:
        return gpuhub.workers() == []

    await eventually(gone, "the workers to be gone")
    kubectl = gpuhub.kubectl
    assert [one["metadata"]["name"] for one in kubectl.list("secret", USERS)] == []
    policies = {one["metadata"]["name"] for one in kubectl.list("networkpolicy", USERS)}
    assert policies == {"gpuhub-default-deny", "gpuhub-servers", "gpuhub-workers"}


async def test_the_lease_names_the_gpu_that_the_cluster_chose(gpuhub: Release, ann: Person, tab: Tab) -> None:
    await tab.flip("worker")

    async def named() -> list[str]:
        lease = await ann.lease()
        return [device["id"] for device in (lease or {}).get("devices", [])]

    found = await eventually(named, "the agent to say which GPU it is")
    assert await tab.value(DEVICE) == repr(found[0])


async def test_a_stopped_server_saves_and_offers_its_variables(gpuhub: Release) -> None:
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, "cat") as cat:
        await cat.start_server()
        tab = await cat.open("tomorrow.ipynb")
        await tab.run(SET)
        await tab.flip("worker")
        await cat.stop_server()

        async def gone() -> bool:
            return gpuhub.workers() == [] and await cat.lease() is None

        await eventually(gone, "the lease to end with the server", 180)
        await cat.start_server()
        again = await cat.open("tomorrow.ipynb")
        snapshots = (await cat.server_api("GET", f"kernels/{again.kernel}/snapshots"))["snapshots"]
        assert snapshots[0]["reason"] in ("server-stop", "worker-stop")
        body = {"snapshot": snapshots[0]["id"]}
        await cat.server_api("POST", f"kernels/{again.kernel}/restore", json=body)
        assert await again.value(SAME) == VALUE
        await cat.stop_server()


@pytest.mark.parametrize("part", ["hub", "broker"])
async def test_a_lost_part_is_not_noticed_in_a_notebook(gpuhub: Release, tab: Tab, part: str) -> None:
    await tab.flip("worker")
    await goes_on(tab, asyncio.create_task(asyncio.to_thread(gpuhub.lose, part)))
    await tab.flip("server")
    assert await tab.value(SAME) == VALUE


async def test_a_lost_proxy_costs_the_connection_and_nothing_else(gpuhub: Release, tab: Tab) -> None:
    await tab.flip("worker")
    await asyncio.to_thread(gpuhub.lose, "proxy")
    again = await reconnected(tab)
    assert await again.value(SAME) == VALUE
    assert (await again.status())["placement"] == "worker"
    await again.flip("server")
    assert await again.value(SAME) == VALUE


async def test_a_lost_worker_brings_the_notebook_back_with_what_was_saved(
    gpuhub: Release, ann: Person, tab: Tab
) -> None:
    await tab.flip("worker")
    (worker,) = gpuhub.workers()
    gpuhub.kubectl("delete", "pod", worker, "-n", USERS, "--grace-period=0", "--force")

    async def back() -> bool:
        status = await tab.status()
        return status["placement"] == "server" and any("was lost" in n["message"] for n in status["notices"])

    await eventually(back, "the notebook to go on without the GPU", 180)
    assert await tab.value(SAME) == VALUE


async def test_an_upgrade_restarts_hub_and_broker_while_a_lease_goes_on(gpuhub: Release, tab: Tab) -> None:
    await tab.flip("worker")
    pods = {part: gpuhub.pod(part) for part in PARTS}
    values = {"broker": {"policy": {"keep_times": 3}}, "hub": {"admins": ["admin", "zoe"]}}
    await goes_on(tab, asyncio.create_task(asyncio.to_thread(gpuhub.install, values)))
    restarted = {part for part in PARTS if gpuhub.pod(part) != pods[part]}
    assert restarted == {"hub", "broker"}
    await tab.flip("server")
    assert await tab.value(SAME) == VALUE
