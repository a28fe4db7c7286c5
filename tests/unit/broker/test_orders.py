"""Orders to the backend, looks at servers, sentences and numbers: the small parts of the broker."""

from __future__ import annotations

import asyncio

from gpuhub.broker import notices
from gpuhub.broker.hostkeys import make_host_key
from gpuhub.broker.presence import Presence
from gpuhub.broker.workqueue import WorkQueue
from gpuhub.core.lease import DeviceInfo
from gpulease.models import Acknowledge
from gpulease.states import EndReason
from tests.builders import active, record
from tests.fakes import BackendAway, ClockByHand, WorkersThatStart
from tests.unit.broker.conftest import ANN, MakePlace, Place


async def test_one_key_runs_one_job_at_a_time() -> None:
    clock, gate, runs = ClockByHand(), asyncio.Event(), []
    queue = WorkQueue(clock.monotonic)

    async def job() -> None:
        runs.append(1)
        await gate.wait()

    assert queue.add(("start", "a"), job)
    assert not queue.add(("start", "a"), job)
    assert queue.add(("start", "b"), job)
    await asyncio.sleep(0)
    assert (len(runs), queue.leases(), queue.pending(("start", "a"))) == (2, {"a", "b"}, True)
    gate.set()
    await queue.settle()
    assert queue.leases() == set()


async def test_a_job_that_fails_is_taken_again_only_after_a_while_and_longer_each_time() -> None:
    clock, failed, done = ClockByHand(), [], []
    queue = WorkQueue(clock.monotonic, on_done=lambda: done.append(1), on_failure=failed.append)

    async def job() -> None:
        raise ValueError("no")

    waits = []
    queue.add(("stop", "a"), job)
    await queue.settle()
    for _ in range(7):
        waited = 0.0
        while not queue.add(("stop", "a"), job):
            clock.pass_seconds(0.25)
            waited += 0.25
        waits.append(waited)
        await queue.settle()
    assert failed == ["stop"] * 8
    assert waits == [0.5, 1, 2, 4, 8, 15, 15]
    assert len(done) == 8


async def test_success_clears_the_memory_of_failures() -> None:
    clock = ClockByHand()
    queue = WorkQueue(clock.monotonic)
    await _fail(queue)
    clock.pass_seconds(1)
    assert queue.add(("start", "a"), _nothing)
    await queue.settle()
    assert queue.add(("start", "a"), _nothing)
    await queue.settle()


async def test_many_jobs_run_a_few_at_a_time() -> None:
    queue, running, most = WorkQueue(ClockByHand().monotonic), 0, 0

    async def job() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    for number in range(50):
        queue.add(("stop", str(number)), job)
    await queue.settle()
    assert most == 8


async def test_a_server_is_gone_only_after_several_looks_some_time_apart() -> None:
    clock, backend = ClockByHand(), WorkersThatStart()
    backend.servers = set()
    presence = Presence(backend, clock.monotonic)
    for passed, gone in ((0, False), (5, False), (5, True)):
        clock.pass_seconds(passed)
        await presence.look([("ann", "")])
        assert presence.gone(("ann", "")) is gone
    backend.servers = {("ann", "")}
    clock.pass_seconds(5)
    await presence.look([("ann", "")])
    assert (presence.gone(("ann", "")), presence.running(("ann", ""))) == (False, True)


async def test_a_backend_that_cannot_tell_makes_no_server_gone() -> None:
    clock, backend = ClockByHand(), BackendAway()
    backend.servers = set()
    presence = Presence(backend, clock.monotonic)
    await presence.look([("ann", "")])
    backend.away = True
    for _ in range(10):
        clock.pass_seconds(5)
        await presence.look([("ann", "")])
    assert not presence.gone(("ann", ""))


async def test_thousands_of_servers_are_looked_at_a_few_at_a_time_and_all_in_turn() -> None:
    clock, backend = ClockByHand(), WorkersThatStart()
    backend.servers = set()
    presence = Presence(backend, clock.monotonic)
    everyone = [(f"u{number}", "") for number in range(40)]
    for _ in range(5):
        await presence.look(everyone)
        clock.pass_seconds(1)
    assert all(presence.running(server) is False for server in everyone)


def test_each_host_key_is_another_and_openssh_can_read_it() -> None:
    one, two = make_host_key(), make_host_key()
    assert one.public.startswith("ssh-ed25519 ")
    assert one.public != two.public
    assert one.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert one.private not in repr(one)


def test_every_reason_has_its_sentences() -> None:
    for reason in EndReason:
        assert notices.ENDED[reason].endswith(".")
        assert not notices.ENDING[reason].endswith(".")


def test_a_simulated_gpu_is_called_so_and_a_real_one_has_its_number() -> None:
    real = DeviceInfo("GPU-1", 3, "NVIDIA H100", 80)
    assert notices.devices(record(devices=(real,))) == "NVIDIA H100 (GPU 3)"
    assert notices.message(active().record, None) == "simulated GPU 0 is yours."


def test_durations_and_sizes_read_like_people_write_them() -> None:
    assert [notices.duration(s) for s in (45, 600, 3600, 9000, 43200)] == [
        "45 s",
        "10 min",
        "60 min",
        "2.5 h",
        "12 h",
    ]
    assert [notices.size(b) for b in (1, 5_000_000, 12_400_000_000)] == ["1 MB", "5 MB", "12.4 GB"]


async def test_the_numbers_for_prometheus_name_no_person(place: Place) -> None:
    lease = await place.active()
    await place.turn()
    text = place.broker.metrics.render().decode()
    assert 'gpuhub_leases_count{pool="simulated",state="active"} 1.0' in text
    assert 'gpuhub_gpus_count{kind="free",pool="simulated"} 0.0' in text
    assert 'gpuhub_wait_seconds_count{pool="simulated"} 1.0' in text
    await place.service.acknowledge(ANN, lease.id, Acknowledge(reason="released"))
    await place.turn()
    text = place.broker.metrics.render().decode()
    assert 'gpuhub_leases_ended_total{pool="simulated",reason="released"} 1.0' in text
    assert "ann" not in text


async def test_the_broker_works_by_itself_once_it_is_entered(make_place: MakePlace) -> None:
    """The only test here with the real clock's pace: everything else is moved by hand."""
    place = await make_place()
    async with place.broker:
        lease = await place.ask()
        async with asyncio.timeout(10):
            async for event in place.service.events(ANN, 0):
                if event.kind == "lease" and event.data["state"] == "active":
                    break
        assert event.data["id"] == lease.id


async def _nothing() -> None:
    return


async def _fail(queue: WorkQueue) -> None:
    async def job() -> None:
        raise ValueError("no")

    queue.add(("start", "a"), job)
    await queue.settle()
