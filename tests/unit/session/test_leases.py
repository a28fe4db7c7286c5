"""The lease keeper: it follows a broker that comes and goes, and holds the link to the worker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpulease import errors
from gpulease.models import Acknowledge, Lease, Link
from gpulease.states import EndReason, LeaseState
from gpusession.leases import KeyPair, LeaseKeeper
from tests.unit.session.conftest import until
from tests.unit.session.fakes import BrokerByHand, WorkerAtHand, counting_ids, now


class Bench:
    """A keeper, its broker, the workers that it connects to, and what it told."""

    def __init__(self, broker: BrokerByHand | None, first_key: int = 1, **seconds: Any) -> None:
        self.broker = broker or BrokerByHand()
        self.workers: list[WorkerAtHand] = []
        self.connected_with: list[tuple[str, str]] = []
        self.refusals = 0
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.ending: list[str] = []
        self.ended: list[tuple[str, EndReason | None]] = []
        self.used: list[dict[str, Any]] = []
        numbers = itertools.count(first_key)
        self.keeper = LeaseKeeper(
            broker,
            "",
            make_key=lambda: KeyPair(private=f"private-{(n := next(numbers))}", public=public(n)),
            connect=self._connect,
            make_id=counting_ids("key"),
            chance=lambda: 0.0,
            on_ending=lambda lease: self.ending.append(lease.id),
            on_ended=lambda lease: self.ended.append((lease.id, lease.reason)),
            on_usage=self.used.append,
            **seconds,
        )
        self._following: asyncio.Task[None] | None = None

    async def _connect(self, link: Link, key: KeyPair) -> WorkerAtHand:
        self.connected_with.append((link.address, key.private))
        if self.refusals:
            self.refusals -= 1
            raise errors.LinkLost("Not yet.")
        await self.may_connect.wait()
        self.workers.append(WorkerAtHand())
        return self.workers[-1]

    def follow(self) -> None:
        self._following = asyncio.create_task(self.keeper.run())

    async def want(self, **more: Any) -> Lease:
        async with asyncio.timeout(10):
            return await self.keeper.want(**more)

    async def linked(self) -> WorkerAtHand:
        async with asyncio.timeout(10):
            link = await self.keeper.linked()
        assert isinstance(link, WorkerAtHand)
        return link

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.keeper.close()


def public(number: int) -> str:
    return "ssh-ed25519 " + f"{number:068d}"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(BrokerByHand())
    made.follow()
    await until(lambda: made.keeper.state == "ok", "the broker is reached")
    yield made
    await made.close()


@pytest.fixture
async def slow_bench() -> AsyncIterator[Bench]:
    """Its broker grants only by hand."""
    made = Bench(BrokerByHand(generous=False))
    made.follow()
    await until(lambda: made.keeper.state == "ok", "the broker is reached")
    yield made
    await made.close()


# --- asking


async def test_a_lease_is_asked_for_once_and_its_worker_is_connected(bench: Bench) -> None:
    first, second = await asyncio.gather(bench.want(), bench.want())
    assert first.id == second.id
    assert len(bench.broker.requests) == 1
    assert await bench.linked() is bench.workers[0]
    assert bench.connected_with == [("unix:/somewhere", "private-1")]


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(bench: Bench) -> None:
    bench.broker.lose_answers = 2
    heard: list[Lease | None] = []
    lease = await bench.want(say=heard.append)
    assert len({key for _, key in bench.broker.requests}) == 1
    assert len(bench.broker.requests) == 3
    assert list(bench.broker.leases) == [lease.id]
    assert heard[:2] == [None, None]


async def test_the_key_in_a_request_stays_the_leases_key_when_news_overtakes_the_answer(bench: Bench) -> None:
    bench.broker.lose_answers = 2
    lease = await bench.want()
    await bench.linked()
    assert set(bench.broker.keys[lease.id]) == {public(1)}
    assert {key for _, key in bench.connected_with} == {"private-1"}


async def test_a_broker_that_is_away_is_waited_for(bench: Bench) -> None:
    bench.broker.away = True
    asking = asyncio.create_task(bench.want())
    await until(lambda: bench.keeper.state == "unreachable", "it is noticed")
    assert not asking.done()
    bench.broker.away = False
    assert (await asking).id == "lease1"
    assert bench.keeper.state == "ok"


async def test_asking_can_be_called_off(bench: Bench) -> None:
    bench.broker.away = True
    asking = asyncio.create_task(bench.want())
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bench.broker.away = False
    assert (await bench.want()).id == "lease1"


async def test_a_refusal_reaches_who_asked_and_the_next_may_ask_again(bench: Bench) -> None:
    bench.broker.refuse = errors.LimitReached("You have one GPU already.")
    with pytest.raises(errors.LimitReached, match="one GPU already"):
        await bench.want()
    bench.broker.refuse = None
    assert (await bench.want()).id == "lease1"
    keys = [key for _, key in bench.broker.requests]
    assert len(set(keys)) == 2


async def test_another_pool_or_more_gpus_than_the_lease_has_is_a_conflict(bench: Bench) -> None:
    await bench.want(pool="sim")
    with pytest.raises(errors.Conflict, match="pool sim"):
        await bench.want(pool="h100")
    with pytest.raises(errors.Conflict, match="1 GPU"):
        await bench.want(gpus=2)


async def test_who_asks_while_the_lease_ends_gets_the_next_one(bench: Bench) -> None:
    first = await bench.want()
    await bench.broker.begin_end(first.id)
    await until(lambda: bench.ending == [first.id], "the ending is told")
    asking = asyncio.create_task(bench.want())
    await asyncio.sleep(0.05)
    assert len(bench.broker.requests) == 1
    await bench.broker.end(first.id)
    assert (await asking).id == "lease2"


async def test_without_a_broker_everything_says_so() -> None:
    lonely = Bench(None)
    lonely.follow()
    with pytest.raises(errors.Unavailable, match="not connected to a GPU service"):
        await lonely.want()
    assert (await lonely.keeper.usage()).times == []
    with pytest.raises(errors.Unavailable):
        await lonely.keeper.release()
    await lonely.close()


# --- following


async def test_waiting_hears_each_change_until_the_worker_is_there(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    heard: list[LeaseState | None] = []
    waiting = asyncio.create_task(bench.keeper.linked(lambda one: heard.append(one.state if one else None)))
    await asyncio.sleep(0.05)
    await bench.broker.change(lease.id, state=LeaseState.STARTING)
    await asyncio.sleep(0.05)
    await bench.broker.activate(lease.id)
    assert await asyncio.wait_for(waiting, 5) is bench.workers[0]
    assert heard[0] is LeaseState.QUEUED
    assert LeaseState.STARTING in heard


async def test_a_cut_stream_goes_on_after_the_last_event(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    await asyncio.sleep(0.05)
    await bench.broker.cut_streams()
    await until(lambda: len(bench.broker.streams_from) > 1, "it is followed again")
    assert bench.broker.streams_from[-1] == 1
    await bench.broker.activate(lease.id)
    await bench.linked()


async def test_what_happened_while_the_broker_was_away_is_seen_afterwards(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    bench.broker.away = True
    await bench.broker.cut_streams()
    await until(lambda: bench.keeper.state == "unreachable", "it is noticed")
    assert bench.keeper.lease is not None
    await bench.broker.activate(lease.id)
    bench.broker.away = False
    await bench.linked()
    assert bench.keeper.state == "ok"


async def test_news_that_is_older_than_what_is_known_changes_nothing(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    old = bench.broker.leases[lease.id]
    await bench.broker.activate(lease.id)
    await bench.linked()
    await bench.broker.say("lease", old.model_dump(mode="json"))
    await bench.broker.change(lease.id, message="seen")
    await until(lambda: bench.keeper.lease and bench.keeper.lease.message == "seen", "the newest is known")
    assert bench.ended == []


async def test_news_that_makes_no_sense_does_not_stop_the_following(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    await bench.broker.say("lease", {"id": "from the future"})
    await until(lambda: len(bench.broker.streams_from) > 1, "it was read")
    await bench.broker.activate(lease.id)
    await bench.linked()


async def test_the_use_of_the_gpu_is_passed_on_and_stays_with_the_lease(bench: Bench) -> None:
    lease = await bench.want()
    usage = {"at": now().isoformat(), "utilisation_percent": 42.0, "memory_bytes": 7, "memory_total_bytes": 9}
    for lease_id in (lease.id, "somebody-elses"):
        await bench.broker.say("usage", {"lease": lease_id, "usage": usage, "idle_seconds": 3.0})
    await until(lambda: bench.used, "it is passed on")
    await bench.broker.change(lease.id, message="changed")
    await until(lambda: bench.keeper.lease and bench.keeper.lease.message == "changed", "the change is seen")
    assert bench.keeper.lease is not None
    assert bench.keeper.lease.usage is not None
    assert bench.keeper.lease.usage.utilisation_percent == 42.0
    assert len(bench.used) == 1


# --- keys


async def test_a_lease_that_somebody_else_asked_for_gets_our_key(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.broker.grant_to_server(needs_key=True)
    await until(lambda: bench.broker.keys.get(lease.id) == [public(1)], "the key is given")
    await bench.broker.activate(lease.id)
    await bench.linked()
    assert bench.connected_with[-1][1] == "private-1"


async def test_a_restarted_server_gives_a_new_key_and_connects_with_it() -> None:
    first = Bench(BrokerByHand())
    first.follow()
    lease = await first.want()
    await first.linked()
    await first.close()
    second = Bench(first.broker, first_key=999)
    second.follow()
    await until(lambda: second.keeper.link is not None, "it is connected")
    assert first.broker.keys[lease.id] == [public(1), public(999)]
    assert second.connected_with == [("unix:/somewhere", "private-999")]
    await second.close()


async def test_giving_the_key_waits_out_a_broker_that_is_away(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.broker.grant_to_server(needs_key=True)
    bench.broker.away = True
    await asyncio.sleep(0.1)
    bench.broker.away = False
    await until(lambda: public(1) in bench.broker.keys.get(lease.id, []), "the key is given")


@pytest.fixture
async def hasty_bench() -> AsyncIterator[Bench]:
    """It waits for nothing long."""
    made = Bench(BrokerByHand(), back_off_seconds=(0.01,), connect_seconds=0.05)
    made.follow()
    await until(lambda: made.keeper.state == "ok", "the broker is reached")
    yield made
    await made.close()


async def test_a_worker_that_knows_an_older_key_is_given_ours_again(hasty_bench: Bench) -> None:
    bench = hasty_bench
    bench.refusals = 7
    lease = await bench.want()
    await until(lambda: bench.keeper.link is not None, "it is connected at last")
    assert bench.broker.keys[lease.id] == [public(1)] * 3
    assert bench.keeper.trouble is None


async def test_a_leases_key_is_forgotten_with_it(bench: Bench) -> None:
    first = await bench.want()
    await bench.linked()
    await bench.broker.end(first.id)
    await until(lambda: bench.ended, "the end is told")
    await bench.want()
    await bench.linked()
    assert bench.connected_with[-1][1] == "private-2"


# --- the link


async def test_a_lost_link_is_opened_again_while_the_lease_lives(bench: Bench) -> None:
    await bench.want()
    first = await bench.linked()
    first.cut()
    await until(lambda: len(bench.workers) == 2, "it is connected again")
    assert await bench.linked() is bench.workers[1]
    assert {key for _, key in bench.connected_with} == {"private-1"}


async def test_a_lost_link_of_an_ending_lease_is_not_opened_again(bench: Bench) -> None:
    lease = await bench.want()
    link = await bench.linked()
    await bench.broker.begin_end(lease.id)
    await until(lambda: bench.ending, "the ending is told")
    link.cut()
    await until(lambda: bench.keeper.link is None, "the loss is seen")
    await asyncio.sleep(0.3)
    assert len(bench.workers) == 1


async def test_who_waits_for_a_silent_worker_is_told_and_it_is_tried_further(hasty_bench: Bench) -> None:
    bench = hasty_bench
    bench.refusals = 100_000
    await bench.want()
    with pytest.raises(errors.LinkLost, match="its worker does not answer"):
        await bench.linked()
    bench.refusals = 0
    await until(lambda: bench.keeper.link is not None, "it is connected at last")
    assert bench.keeper.trouble is None
    await bench.linked()


async def test_a_lease_that_ends_while_its_worker_is_connected_leaves_no_link(bench: Bench) -> None:
    bench.may_connect.clear()
    lease = await bench.want()
    await until(lambda: bench.connected_with, "the connecting has begun")
    await bench.broker.end(lease.id)
    await until(lambda: bench.ended, "the end is told")
    bench.may_connect.set()
    await asyncio.sleep(0.05)
    assert bench.keeper.link is None


async def test_the_next_lease_never_gets_the_link_of_the_last_one(bench: Bench) -> None:
    first = await bench.want()
    old = await bench.linked()
    ended = bench.broker.leases[first.id].model_copy(
        update={"revision": 50, "state": LeaseState.ENDED, "reason": EndReason.EXPIRED, "link": None}
    )
    link = Link(address="unix:/second", host_key=bench.broker.leases[first.id].link.host_key)  # type: ignore[union-attr]
    second = first.model_copy(
        update={"id": "second", "revision": 1, "state": LeaseState.ACTIVE, "link": link}
    )
    bench.broker.leases |= {first.id: ended, "second": second}
    await bench.keeper.refresh()  # brings both in one tick
    assert bench.keeper.link is None
    new = await bench.linked()
    assert new is not old
    assert bench.connected_with[-1][0] == "unix:/second"
    await until(lambda: old.closed, "the old link is closed")


async def test_waiting_for_a_link_ends_when_the_lease_does(slow_bench: Bench) -> None:
    bench = slow_bench
    lease = await bench.want()
    waiting = asyncio.create_task(bench.linked())
    await asyncio.sleep(0.02)
    await bench.broker.change(lease.id, message="It was cancelled.")
    await bench.broker.end(lease.id, EndReason.CANCELLED)
    with pytest.raises(errors.LeaseOver, match="It was cancelled"):
        await waiting


# --- ends


async def test_an_ending_and_an_end_are_told_once_each(bench: Bench) -> None:
    lease = await bench.want()
    link = await bench.linked()
    await bench.keeper.release()
    for _ in range(3):
        await bench.broker.change(lease.id, message="still ending")
    await bench.keeper.refresh()
    await bench.broker.end(lease.id)
    await bench.keeper.refresh()
    await bench.broker.change(lease.id, message="and again")
    await bench.keeper.refresh()
    await asyncio.sleep(0.1)
    assert bench.ending == [lease.id]
    assert bench.ended == [(lease.id, EndReason.RELEASED)]
    assert bench.keeper.lease is None
    assert link.closed


async def test_a_lease_that_the_broker_forgot_is_over(bench: Bench) -> None:
    lease = await bench.want()
    link = await bench.linked()
    del bench.broker.leases[lease.id]
    await bench.keeper.refresh()
    assert [one for one, _ in bench.ended] == [lease.id]
    assert bench.keeper.lease is None
    await until(lambda: link.closed, "its link is closed")
    assert (await bench.want()).id != lease.id


async def test_an_end_that_happened_out_of_sight_is_found_by_looking(bench: Bench) -> None:
    lease = await bench.want()
    bench.broker.leases[lease.id] = bench.broker.leases[lease.id].model_copy(
        update={"revision": 9, "state": LeaseState.ENDED, "reason": EndReason.IDLE}
    )
    await bench.keeper.refresh()
    assert bench.ended == [(lease.id, EndReason.IDLE)]


async def test_a_second_lease_of_this_server_takes_over_when_the_first_has_ended(slow_bench: Bench) -> None:
    bench = slow_bench
    first = await bench.want()
    second = await bench.broker.grant_to_server()
    await asyncio.sleep(0.05)
    assert bench.keeper.lease is not None
    assert bench.keeper.lease.id == first.id
    await bench.broker.end(first.id)
    await until(lambda: bench.keeper.lease and bench.keeper.lease.id == second.id, "the second is known")


async def test_leases_of_other_servers_are_not_ours(slow_bench: Bench) -> None:
    bench = slow_bench
    await bench.broker.grant_to_server("another")
    await bench.broker.grant_to_server(user="bob")
    await bench.keeper.refresh()
    await asyncio.sleep(0.05)
    assert bench.keeper.lease is None
    assert bench.broker.keys == {}


async def test_an_acknowledgement_is_repeated_until_it_is_heard(bench: Bench) -> None:
    lease = await bench.want()
    bench.broker.away = True
    telling = asyncio.create_task(bench.keeper.acknowledge(lease.id, Acknowledge()))
    await asyncio.sleep(0.05)
    assert not telling.done()
    bench.broker.away = False
    await asyncio.wait_for(telling, 5)
    assert [one for one, _ in bench.broker.acks] == [lease.id]
    assert [one for one, _ in bench.ended] == [lease.id]


async def test_an_acknowledgement_for_a_lease_that_is_over_is_not_repeated(bench: Bench) -> None:
    lease = await bench.want()
    bench.broker.away = True
    telling = asyncio.create_task(bench.keeper.acknowledge(lease.id, Acknowledge()))
    await asyncio.sleep(0.05)
    await bench.broker.end(lease.id)
    await asyncio.wait_for(telling, 5)
    assert bench.broker.acks == []


async def test_closing_closes_the_link_and_leaves_the_lease(bench: Bench) -> None:
    lease = await bench.want()
    link = await bench.linked()
    await bench.close()
    assert link.closed
    assert bench.broker.leases[lease.id].state is LeaseState.ACTIVE
    assert bench.ended == []
