"""Few GPUs, several people: joining, waiting, being granted, being told before anything is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.person import Person, Tab, eventually
from tests.running import RunningHub

POLICY = {
    "idle_after_seconds": 6,
    "warn_seconds": 6,
    "keep_minutes": 1,
    "keep_times": 2,
    "ending_deadline_seconds": 30,
    "worker_grace_seconds": 20,
}
SPIN = """
import threading, time
stop = False
def spin():
    while not stop:
        sum(i * i for i in range(20000))
"""


@pytest.fixture(scope="module")
def one_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One simulated GPU and impatient rules."""
    with RunningHub(tmp_path_factory.mktemp("one"), gpus="sim:1", policy=POLICY) as running:
        yield running


async def busy(tab: Tab, seconds: float) -> str:
    """Submit a cell that keeps the GPU busy; returns its message id."""
    return await tab.submit(
        f"import time\nend = time.time() + {seconds}\nwhile time.time() < end: sum(range(9999))"
    )


async def test_a_second_notebook_joins_the_lease_at_once(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "joiner") as ann:
        await ann.start_server()
        first, second = await ann.open("one.ipynb"), await ann.open("two.ipynb")
        await first.run("x = 1")
        await second.run("y = 2")
        one = await first.flip("worker")
        two = await second.flip("worker")
        assert one["lease"] == two["lease"]
        device = "__import__('os').environ['CUDA_VISIBLE_DEVICES']"
        assert await first.value(device) == await second.value(device) != "''"
        assert (await first.value("x"), await second.value("y")) == ("1", "2")
        await ann.broker_release()
        assert (await first.settled())["placement"] == (await second.settled())["placement"] == "server"
        assert (await first.value("x"), await second.value("y")) == ("1", "2")
        await ann.stop_server()


async def test_two_people_get_two_gpus(hub: RunningHub) -> None:
    async with (
        await Person.enrol(hub.url, hub.admin_token, "twin-a") as ann,
        await Person.enrol(hub.url, hub.admin_token, "twin-b") as bob,
    ):
        await asyncio.gather(ann.start_server(), bob.start_server())
        tabs = await asyncio.gather(ann.open("a.ipynb"), bob.open("b.ipynb"))
        await asyncio.gather(*(tab.flip("worker") for tab in tabs))
        seen = [await tab.value("__import__('os').environ['CUDA_VISIBLE_DEVICES']") for tab in tabs]
        assert len(set(seen)) == 2
        pools = (await ann.broker("GET", "pools"))["pools"]
        assert [(p["free"], p["simulated"]) for p in pools] == [(0, True)]
        await asyncio.gather(ann.broker_release(), bob.broker_release())
        await asyncio.gather(ann.stop_server(), bob.stop_server())


async def test_who_waits_sees_a_position_that_counts_down_and_is_granted_with_the_browser_closed(
    one_gpu: RunningHub,
) -> None:
    people = [
        await Person.enrol(one_gpu.url, one_gpu.admin_token, name) for name in ("first", "second", "third")
    ]
    async with people[0] as ann, people[1] as bob, people[2] as cyd:
        for person in people:
            await person.start_server()
        a, b, c = [await person.open("n.ipynb") for person in people]
        await b.run("kept = [1, 2, 3]")
        await a.flip("worker")
        work = await busy(a, 60)
        await b.ask("worker")
        await eventually(bob.lease, "the second in the queue")
        await c.ask("worker")

        async def queued(person: Person, place: int) -> bool:
            lease = await person.lease()
            return bool(lease and lease["state"] == "queued" and lease["position"]["place"] == place)

        await eventually(lambda: queued(bob, 1), "place 1")
        await eventually(lambda: queued(cyd, 2), "place 2")
        message = (await bob.lease())["position"]["message"]
        assert message
        assert "first" not in message  # numbers, not names
        await b.close()  # nobody looks
        bob.tabs.remove(b)
        await ann.broker("DELETE", f"leases/{(await ann.lease())['id']}")
        await a.result(work)

        async def on_the_gpu() -> bool:
            kernels = (await bob.server_api("GET", "status"))["kernels"]
            return [k["placement"] for k in kernels] == ["worker"]

        await eventually(on_the_gpu, "the second to be moved", 90)
        await eventually(lambda: queued(cyd, 1), "place 1 for the third")
        again = await Tab(bob, b.kernel, b.session, b.path).connect()
        bob.tabs.append(again)
        assert await again.value("kept") == "[1, 2, 3]"
        await cyd.broker_release()  # a queued one is cancelled
        ended = (await cyd.broker("GET", "leases?ended=true"))["leases"][0]
        assert (ended["state"], ended["reason"]) == ("ended", "cancelled")
        for person in (ann, bob, cyd):
            await person.broker_release()
            await person.stop_server()


async def test_an_idle_gpu_is_announced_kept_in_bounds_then_saved_and_released(one_gpu: RunningHub) -> None:
    async with await Person.enrol(one_gpu.url, one_gpu.admin_token, "idler") as ann:
        await ann.start_server()
        tab = await ann.open("idle.ipynb")
        await tab.run("import numpy as np\nbig = np.arange(3_000_000)\nalias = big")
        await tab.flip("worker")

        async def warned() -> dict | None:
            lease = await ann.lease()
            return lease["warning"] if lease else None

        warning = await eventually(warned, "the warning", 60)
        assert warning["reason"] == "idle"
        assert warning["keep"] == {"minutes": 1, "times_left": 2}
        assert warning["message"]
        kept = await ann.server_api("POST", "lease/keep")
        assert kept["warning"] is None
        lease = await ann.lease()
        for left in (1, 0):
            lease = await ann.broker("POST", f"leases/{lease['id']}/keep") if left == 0 else lease
        refusal = await ann.broker("POST", f"leases/{lease['id']}/keep", expect=409)
        assert refusal["code"] == "keep-used-up"
        assert refusal["hint"]
        await ann.broker_release()
        await ann.stop_server()


async def test_without_an_answer_the_variables_come_back_and_the_notebook_says_so(
    one_gpu: RunningHub,
) -> None:
    async with await Person.enrol(one_gpu.url, one_gpu.admin_token, "away") as ann:
        await ann.start_server()
        tab = await ann.open("away.ipynb")
        await tab.run("import numpy as np\nbig = np.arange(1_000_000)\nalias = big")
        await tab.flip("worker")

        async def back() -> dict | None:
            status = await tab.status()
            return status if status["placement"] == "server" and await ann.lease() is None else None

        status = await eventually(back, "the kernel to come back", 90)
        assert await tab.value("alias is big and int(big.sum()) == 499999500000") == "True"
        notice = next(n for n in status["notices"] if n["kind"] == "moved-back")
        assert "idle" in notice["message"]
        ended = (await ann.broker("GET", "leases?ended=true"))["leases"][0]
        assert (ended["state"], ended["reason"]) == ("ended", "idle")
        await ann.stop_server()


async def test_a_training_loop_is_never_idle_even_with_the_tab_closed(one_gpu: RunningHub) -> None:
    async with await Person.enrol(one_gpu.url, one_gpu.admin_token, "trainer") as ann:
        await ann.start_server()
        tab = await ann.open("train.ipynb")
        await tab.flip("worker")
        await busy(tab, 30)
        await tab.close()
        ann.tabs.remove(tab)
        for _ in range(24):
            lease = await ann.lease()
            assert lease is not None
            assert lease["state"] == "active"
            assert lease["warning"] is None
            await asyncio.sleep(1)
        await ann.broker_release()
        await ann.stop_server()
