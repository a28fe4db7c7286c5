"""What every backend promises (`gpuhub.backends.base`): one suite for the real ones and the fakes.

A backend joins by one more entry in `backend`: a context manager that yields it, with two free GPUs
in its only pool and workers that get ready and stop by themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from gpuhub.backends.base import Backend, BackendError, Phase, WorkerOrder, WorkerSeen
from tests.builders import KEY
from tests.fakes import BackendAway, NodeVanishes, WorkersThatStart, gpus
from tests.launching import running_local_backend, until
from tests.unit.backends.running import running_kubernetes_backend

ONE, TWO = "7f3c9a0b5d2e4f617f3c9a0b5d2e4f61", "a1b2c3d4e5f60718a1b2c3d4e5f60718"
FAKES = {"WorkersThatStart": WorkersThatStart, "NodeVanishes": NodeVanishes, "BackendAway": BackendAway}


@pytest.fixture(params=["local", "kubernetes", *FAKES])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "local":
            found: Backend = await stack.enter_async_context(running_local_backend())
        elif request.param == "kubernetes":
            found = await stack.enter_async_context(running_kubernetes_backend())
        else:
            found = FAKES[request.param](gpus(2))
        stack.push_async_callback(found.close)
        yield found


async def order(backend: Backend, lease_id: str = ONE, device: int = 0, **fields: object) -> WorkerOrder:
    [pool] = await backend.offers()
    content: dict[str, object] = {
        "lease_id": lease_id,
        "user": "ann",
        "server": "",
        "pool": pool.name,
        "gpus": 1,
        # Where a cluster's scheduler chooses, an order names none.
        "device_ids": (pool.devices[device].id,) if pool.devices else (),
        "public_key": KEY,
        "host_key": "private",
        "grace_seconds": 5,
        **fields,
    }
    return WorkerOrder(**content)


async def seen(backend: Backend, phase: Phase, lease_id: str = ONE) -> WorkerSeen:
    async def look() -> WorkerSeen | None:
        worker = (await backend.observe()).get(lease_id)
        return worker if worker is not None and worker.phase is phase else None

    return await until(look, f"the worker is {phase}")


async def test_an_offer_counts_the_gpus_that_work_and_names_them_where_the_broker_chooses(
    backend: Backend,
) -> None:
    [pool] = await backend.offers()
    assert pool.total == 2
    assert pool.memory_bytes > 0
    assert len({device.id for device in pool.devices}) == len(pool.devices)
    assert len(pool.devices) in (0, pool.total)
    for device in pool.devices:
        assert pool.simulated
        assert "simulated" in device.name
        assert device.memory_bytes == pool.memory_bytes


async def test_nothing_is_seen_before_anything_was_started(backend: Backend) -> None:
    assert await backend.observe() == {}


async def test_a_worker_that_was_started_gets_ready_with_its_address_and_gpus(backend: Backend) -> None:
    wanted = await order(backend)
    await backend.start(wanted)
    worker = await seen(backend, Phase.READY)
    assert worker.address.startswith(("unix:/", "tcp:"))
    assert worker.device_ids == wanted.device_ids


async def test_a_worker_is_seen_as_soon_as_start_returns(backend: Backend) -> None:
    await backend.start(await order(backend))
    assert (await backend.observe())[ONE].phase in (Phase.STARTING, Phase.READY)


async def test_started_twice_is_started_once(backend: Backend) -> None:
    wanted = await order(backend)
    await backend.start(wanted)
    await backend.start(wanted)
    await seen(backend, Phase.READY)
    await backend.start(await order(backend, public_key=KEY.replace("A", "B")))
    assert list(await backend.observe()) == [ONE]


async def test_a_gpu_is_not_given_to_two_workers(backend: Backend) -> None:
    [pool] = await backend.offers()
    if pool.devices:
        await backend.start(await order(backend))
        with pytest.raises(BackendError):
            await backend.start(await order(backend, TWO))
        assert list(await backend.observe()) == [ONE]
    else:
        await backend.start(await order(backend, gpus=2))
        await seen(backend, Phase.READY)
        await backend.start(await order(backend, TWO, user="bob"))

        async def waits() -> bool:
            return (await backend.observe())[TWO].waiting

        await until(waits, "the second worker waits for room")
        assert (await backend.observe())[TWO].phase is Phase.STARTING


async def test_two_workers_run_beside_each_other(backend: Backend) -> None:
    await backend.start(await order(backend))
    await backend.start(await order(backend, TWO, device=1, user="bob"))
    one, two = await seen(backend, Phase.READY), await seen(backend, Phase.READY, TWO)
    assert one.address != two.address
    await backend.stop(ONE, grace_seconds=5)
    await seen(backend, Phase.EXITED)
    assert (await backend.observe())[TWO].phase is Phase.READY


async def test_a_stopped_worker_is_seen_as_exited_until_it_is_forgotten(backend: Backend) -> None:
    await backend.start(await order(backend))
    await seen(backend, Phase.READY)
    await backend.stop(ONE, grace_seconds=5)
    assert (await seen(backend, Phase.EXITED)).address is None
    await backend.forget(ONE)
    assert await backend.observe() == {}


async def test_stopped_twice_is_stopped_once_and_an_unknown_lease_is_fine(backend: Backend) -> None:
    await backend.stop(TWO, grace_seconds=5)
    await backend.forget(TWO)
    await backend.start(await order(backend))
    await backend.stop(ONE, grace_seconds=5)
    await backend.stop(ONE, grace_seconds=5)
    await seen(backend, Phase.EXITED)
    await backend.stop(ONE, grace_seconds=5)
    await backend.forget(ONE)
    await backend.forget(ONE)
    assert await backend.observe() == {}


async def test_a_worker_that_runs_is_not_forgotten(backend: Backend) -> None:
    await backend.start(await order(backend))
    await seen(backend, Phase.READY)
    with contextlib.suppress(BackendError):
        await backend.forget(ONE)
    assert (await backend.observe())[ONE].phase is Phase.READY


async def test_the_gpu_of_a_stopped_worker_can_be_given_to_the_next(backend: Backend) -> None:
    await backend.start(await order(backend))
    await seen(backend, Phase.READY)
    await backend.stop(ONE, grace_seconds=5)
    await seen(backend, Phase.EXITED)
    await backend.start(await order(backend, TWO))
    await seen(backend, Phase.READY, TWO)


async def test_an_exited_worker_does_not_come_again_by_the_same_lease(backend: Backend) -> None:
    wanted = await order(backend)
    await backend.start(wanted)
    await backend.stop(ONE, grace_seconds=5)
    await seen(backend, Phase.EXITED)
    await backend.start(wanted)
    assert (await backend.observe())[ONE].phase is Phase.EXITED


async def test_whether_a_server_runs_is_told_or_said_to_be_unknown(backend: Backend) -> None:
    assert await backend.server_running("nobody", "") in (False, None)
