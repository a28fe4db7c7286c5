"""One broker leads: by a Lease, by the holder's own steady clock, and never by anybody's wall clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpuhub.backends.kubernetes.api import LEASES, ApiError
from gpuhub.backends.kubernetes.leader import DOUBT_SECONDS, EXPIRES_SECONDS, RENEW_SECONDS, LeaseLeader
from tests.launching import until
from tests.unit.backends.memorycluster import ClusterInMemory

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Moment:
    """The steady clock that all brokers of a test share."""

    def __init__(self) -> None:
        self.seconds = 1000.0


class Contest:
    """Brokers that want one Lease, and a clock that a test moves."""

    def __init__(self) -> None:
        self.cluster = ClusterInMemory()
        self.moment = Moment()

    def leader(self, name: str, *, wall_is_off_by: float = 0.0) -> LeaseLeader:
        return LeaseLeader(
            self.cluster,
            namespace="gpuhub",
            name="gpuhub-broker",
            identity=name,
            clock=lambda: self.moment.seconds,
            now=lambda: NOW + timedelta(seconds=self.moment.seconds + wall_is_off_by),
        )

    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.one("leases", "gpuhub-broker", "gpuhub")["spec"]
        return found


@pytest.fixture
def contest() -> Contest:
    return Contest()


async def test_the_first_one_leads_and_says_so_in_the_lease(contest: Contest) -> None:
    one = contest.leader("one")
    assert not one.leads()
    await one.acquire()
    assert one.leads()
    assert contest.spec()["holderIdentity"] == "one"
    assert contest.spec()["leaseDurationSeconds"] == EXPIRES_SECONDS
    assert contest.spec()["leaseTransitions"] == 0


async def test_the_second_one_waits_for_as_long_as_the_first_renews(contest: Contest) -> None:
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    for _ in range(20):
        contest.moment.seconds += RENEW_SECONDS
        assert await one.attempt()
        assert not await two.attempt()
    assert one.leads()
    assert not two.leads()


async def test_the_second_one_takes_over_what_was_not_renewed_for_long_enough(contest: Contest) -> None:
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    assert not await two.attempt()
    contest.moment.seconds += EXPIRES_SECONDS - 0.1
    assert not await two.attempt()
    assert not one.leads(), "the holder doubts itself before another one may believe"
    contest.moment.seconds += 0.2
    assert await two.attempt()
    assert contest.spec()["holderIdentity"] == "two"
    assert contest.spec()["leaseTransitions"] == 1
    assert not await one.attempt()
    assert not one.leads()


async def test_there_is_no_moment_at_which_two_lead(contest: Contest) -> None:
    """The worst case: the first one's renewal took its time, and then it never comes again."""
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    led = []
    for _ in range(300):
        contest.moment.seconds += 0.1
        await two.attempt()
        led.append((one.leads(), two.leads()))
    assert (True, True) not in led
    assert led[-1] == (False, True)


@pytest.mark.parametrize("hours", [-1000, 1000])
async def test_a_wall_clock_that_is_wrong_neither_takes_nor_keeps_the_lead(
    contest: Contest, hours: int
) -> None:
    one, two = contest.leader("one"), contest.leader("two", wall_is_off_by=hours * 3600.0)
    await one.acquire()
    assert not await two.attempt()
    contest.moment.seconds += RENEW_SECONDS
    assert await one.attempt()
    assert not await two.attempt()
    contest.moment.seconds += EXPIRES_SECONDS + 1
    assert await two.attempt()
    assert not one.leads()
    contest.moment.seconds += RENEW_SECONDS
    assert not await one.attempt(), "the new holder's odd times mean nothing to the old one"


async def test_of_two_that_take_a_free_lease_at_once_one_gets_it(contest: Contest) -> None:
    brokers = [contest.leader(f"broker-{number}") for number in range(5)]
    won = await asyncio.gather(*(one.attempt() for one in brokers))
    assert sum(won) == 1
    assert [one.leads() for one in brokers] == won


async def test_of_two_that_take_an_expired_lease_at_once_one_gets_it(contest: Contest) -> None:
    old = contest.leader("old")
    await old.acquire()
    brokers = [contest.leader(f"broker-{number}") for number in range(5)]
    await asyncio.gather(*(one.attempt() for one in brokers))
    contest.moment.seconds += EXPIRES_SECONDS + 1
    won = await asyncio.gather(*(one.attempt() for one in brokers))
    assert sum(won) == 1


async def test_while_the_cluster_is_away_the_holder_doubts_itself_and_leads_again_afterwards(
    contest: Contest,
) -> None:
    one = contest.leader("one")
    await one.acquire()
    contest.cluster.away = True
    contest.moment.seconds += DOUBT_SECONDS - 0.1
    assert not await one.attempt()
    assert one.leads()
    contest.moment.seconds += 0.2
    assert not one.leads()
    contest.cluster.away = False
    assert await one.attempt()
    assert one.leads()


async def test_holding_ends_when_the_lead_is_lost_and_a_process_that_slept_does_not_lead(
    contest: Contest,
) -> None:
    one = contest.leader("one")
    await one.acquire()
    contest.moment.seconds += 3600  # the machine was suspended
    assert not one.leads()
    await asyncio.wait_for(one.hold(), 5)
    assert not one.leads()


async def test_a_released_lease_is_free_at_once(contest: Contest) -> None:
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    assert not await two.attempt()
    await one.release()
    assert not one.leads()
    assert await two.attempt()


async def test_a_release_takes_nothing_from_whoever_leads_by_now(contest: Contest) -> None:
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    await two.attempt()
    contest.moment.seconds += EXPIRES_SECONDS + 1
    assert await two.attempt()
    await one.release()
    assert contest.spec()["holderIdentity"] == "two"


async def test_a_release_without_a_cluster_is_no_error(contest: Contest) -> None:
    one = contest.leader("one")
    await one.acquire()
    contest.cluster.away = True
    await one.release()
    assert not one.leads()


@pytest.mark.parametrize("reason", ["Conflict", "Forbidden"])
async def test_a_renewal_that_is_refused_keeps_nothing(contest: Contest, reason: str) -> None:
    one = contest.leader("one")
    await one.acquire()
    status = 409 if reason == "Conflict" else 403
    contest.cluster.refuse["replace", "leases"] = ApiError(status, reason, "no")
    contest.moment.seconds += DOUBT_SECONDS
    assert not await one.attempt()
    assert not one.leads()


@pytest.mark.parametrize("spec", [None, [], {}, {"holderIdentity": None}])
async def test_a_lease_that_somebody_spoilt_is_taken(contest: Contest, spec: object) -> None:
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
    await contest.cluster.create(LEASES, "gpuhub", {**body, "metadata": {"name": "gpuhub-broker"}})
    one = contest.leader("one")
    assert await one.attempt()
    assert contest.spec()["holderIdentity"] == "one"


async def test_a_lease_that_was_removed_is_made_again_by_its_holder(contest: Contest) -> None:
    one = contest.leader("one")
    await one.acquire()
    await contest.cluster.delete(LEASES, "gpuhub", "gpuhub-broker")
    assert await one.attempt()
    assert one.leads()


async def test_an_api_that_hangs_costs_the_lead_and_not_the_process(contest: Contest) -> None:
    one = contest.leader("one")
    await one.acquire()
    contest.cluster.slow_seconds = 3600
    trying = asyncio.ensure_future(one.attempt())
    contest.moment.seconds += DOUBT_SECONDS + 1
    assert not one.leads()
    assert await asyncio.wait_for(trying, RENEW_SECONDS + 5) is False


async def test_whoever_waits_leads_as_soon_as_it_can(contest: Contest) -> None:
    one, two = contest.leader("one"), contest.leader("two")
    await one.acquire()
    waiting = asyncio.ensure_future(two.acquire())
    await until(lambda: _asked(contest, "get"), "the second one has looked")
    await one.release()
    await asyncio.wait_for(waiting, 10)
    assert two.leads()


async def _asked(contest: Contest, verb: str) -> bool:
    return contest.cluster.asked.count((verb, "leases")) >= 3
