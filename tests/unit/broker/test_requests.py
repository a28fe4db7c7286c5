"""Asking: what is answered, what is refused and with which words, what a retry does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gpulease import errors
from gpulease.models import Acknowledge, LeaseRequest
from gpulease.states import LeaseState
from tests.builders import KEY
from tests.fakes import START, WorkersThatStart, gpus
from tests.unit.broker.conftest import ANN, BOB, OPERATOR, MakePlace, Place

SECOND = replace(ANN, server="second")
PERSON = replace(ANN, server=None)


async def test_a_retry_with_the_same_key_is_answered_with_the_same_lease(place: Place) -> None:
    request = LeaseRequest(public_key=KEY)
    first, made = await place.service.request(ANN, request, "k1")
    again, made_again = await place.service.request(ANN, request, "k1")
    assert (made, made_again) == (True, False)
    assert again.id == first.id


async def test_a_retry_after_the_lease_has_ended_makes_no_second_one(place: Place) -> None:
    lease = await place.ask(key="k1")
    await place.service.release(ANN, lease.id)
    again = await place.ask(key="k1")
    assert (again.id, again.state) == (lease.id, LeaseState.ENDED)


async def test_the_key_may_stand_in_the_body(place: Place) -> None:
    first = await place.ask(idempotency_key="k1")
    assert (await place.ask(key="k1")).id == first.id


async def test_the_same_key_for_another_request_is_refused(place: Place) -> None:
    await place.ask(key="k1")
    with pytest.raises(errors.KeyReused):
        await place.ask(key="k1", gpus=2)


async def test_keys_of_two_people_are_two_keys(place: Place) -> None:
    assert (await place.ask(ANN, key="k")).id != (await place.ask(BOB, key="k")).id


async def test_a_server_with_a_live_lease_is_answered_with_it(place: Place) -> None:
    lease = await place.active()
    again, made = await place.service.request(ANN, LeaseRequest(public_key=KEY), "other-key")
    assert (again.id, made) == (lease.id, False)
    later, made = await place.service.request(ANN, LeaseRequest(public_key=KEY), "other-key")
    assert (later.id, made) == (lease.id, False)


async def test_two_tabs_at_once_make_one_lease(place: Place) -> None:
    answers = await asyncio.gather(*(place.ask(key=f"k{n}") for n in range(8)))
    assert len({lease.id for lease in answers}) == 1


async def test_two_servers_at_once_do_not_both_fit_into_the_last_place(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(4)))
    answers = await asyncio.gather(
        *(place.ask(replace(ANN, server=f"s{n}")) for n in range(5)), return_exceptions=True
    )
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [errors.LimitReached] * 4


async def test_another_kind_for_the_same_server_is_a_conflict(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(1), gpus(1, "big")))
    await place.ask(pool="simulated")
    with pytest.raises(errors.Conflict, match="already has a lease of the pool simulated"):
        await place.ask(pool="big")


async def test_who_has_released_may_ask_again_at_once_and_waits(place: Place) -> None:
    lease = await place.active()
    await place.service.release(ANN, lease.id)
    again = await place.ask()
    await place.turn()
    waiting = await place.see(again)
    assert waiting.id != lease.id
    assert (waiting.state, waiting.position.waiting_for) == (LeaseState.QUEUED, "quota")
    await place.service.acknowledge(ANN, lease.id, Acknowledge())
    await place.turn()
    assert (await place.see(again)).state is LeaseState.ACTIVE


@pytest.mark.parametrize("count", [0, -3])
async def test_fewer_than_one_gpu_is_no_request(place: Place, count: int) -> None:
    with pytest.raises(errors.InvalidOption):
        await place.ask(gpus=count)


async def test_more_than_the_pool_has_is_refused_with_the_number(place: Place) -> None:
    with pytest.raises(errors.InvalidOption, match="has 1 GPU; you asked for 1000") as refusal:
        await place.ask(gpus=1000)
    assert refusal.value.details == {"gpus": 1000, "total": 1}


async def test_an_unknown_pool_is_refused_with_those_on_offer(place: Place) -> None:
    with pytest.raises(errors.UnknownPool) as refusal:
        await place.ask(pool="quantum")
    assert refusal.value.details == {"pools": ["simulated"]}


async def test_where_nothing_is_on_offer_that_is_said(make_place: MakePlace) -> None:
    backend = WorkersThatStart()
    backend.pools = ()
    place = await make_place(backend)
    with pytest.raises(errors.UnknownPool, match="no GPU on offer"):
        await place.ask()


async def test_a_limit_is_refused_with_its_numbers(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(4)))
    lease = await place.active()
    with pytest.raises(errors.LimitReached) as refusal:
        await place.ask(SECOND)
    assert refusal.value.details == {
        "limit": "gpus_at_once",
        "used": 1,
        "allowed": 1,
        "unit": "gpus",
        "retry_at": lease.ends_at.isoformat(),
    }


async def test_groups_have_their_own_limits_and_their_priority(make_place: MakePlace) -> None:
    policy = {"groups": {"lab": {"gpus_at_once": 3, "priority": "high"}}}
    place = await make_place(WorkersThatStart(gpus(4)), **policy)
    labber = replace(ANN, groups=("lab", "other"))
    await place.active(BOB)
    lease = await place.active(labber, gpus=3)
    assert (lease.state, lease.priority, lease.gpus) == (LeaseState.ACTIVE, "high", 3)
    with pytest.raises(errors.LimitReached):
        await place.ask(replace(labber, server="second"))


async def test_a_pool_for_a_group_is_hidden_from_others(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(1), gpus(1, "big")), pools={"big": {"groups": ["lab"]}})
    labber = replace(BOB, groups=("lab",))
    assert [pool.name for pool in await place.service.pools(ANN)] == ["simulated"]
    assert [pool.name for pool in await place.service.pools(labber)] == ["simulated", "big"]
    with pytest.raises(errors.UnknownPool) as refusal:
        await place.ask(ANN, pool="big")
    assert refusal.value.details == {"pools": ["simulated"]}
    assert (await place.ask(labber, pool="big")).pool == "big"


async def test_used_up_gpu_hours_are_refused_and_shown(make_place: MakePlace) -> None:
    place = await make_place(gpu_hours_per_week=1, idle_after_seconds=100_000)
    lease = await place.active()
    await place.later(3360, step=60)
    warned = await place.see(lease)
    assert (warned.warning.reason, warned.warning.keep.times_left) == ("quota", 0)
    with pytest.raises(errors.KeepUsedUp):
        await place.service.keep(ANN, lease.id)
    await place.later(600, step=20)
    ended = await place.see(lease)
    assert (ended.state, ended.reason) == (LeaseState.ENDED, "quota")
    with pytest.raises(errors.LimitReached) as refusal:
        await place.ask()
    assert refusal.value.details["limit"] == "gpu_hours_per_week"
    me = await place.service.me(ANN)
    hours = next(quota for quota in me.quotas if quota.name == "gpu_hours_per_week")
    assert hours.used >= hours.allowed == 1
    assert hours.frees_at.isoformat() == refusal.value.details["retry_at"]
    await place.later(7 * 24 * 3600, step=12 * 3600)
    assert (await place.ask()).state is LeaseState.QUEUED


async def test_a_server_asks_for_itself_only(place: Place) -> None:
    with pytest.raises(errors.NotAllowed):
        await place.service.request(ANN, LeaseRequest(server="second"), None)
    lease, _ = await place.service.request(PERSON, LeaseRequest(server="second"), None)
    assert lease.server == "second"


async def test_a_token_without_the_scope_gets_nothing(place: Place) -> None:
    nobody = replace(ANN, may_manage=False)
    for call in (place.service.me(nobody), place.service.request(nobody, LeaseRequest(), None)):
        with pytest.raises(errors.NotAllowed):
            await call
    with pytest.raises(errors.NotAllowed):
        place.service.events(nobody)


async def test_somebody_elses_lease_is_not_there(place: Place) -> None:
    lease = await place.active(ANN)
    calls = [
        place.service.lease(BOB, lease.id),
        place.service.release(BOB, lease.id),
        place.service.keep(BOB, lease.id),
        place.service.set_key(BOB, lease.id, KEY),
        place.service.usage(BOB, lease.id),
        place.service.acknowledge(BOB, lease.id, Acknowledge(reason="released")),
        # An operator sees and ends, but never stands in for the owner's server.
        place.service.set_key(OPERATOR, lease.id, KEY),
        place.service.acknowledge(OPERATOR, lease.id, Acknowledge(reason="released")),
        place.service.keep(OPERATOR, lease.id),
        place.service.lease(ANN, "no-such-lease"),
    ]
    for call in calls:
        with pytest.raises(errors.NotFound):
            await call
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_ones_second_server_cannot_take_over_the_first_ones_worker(place: Place) -> None:
    lease = await place.active(ANN)
    with pytest.raises(errors.NotAllowed):
        await place.service.set_key(SECOND, lease.id, KEY.replace("A", "C"))
    with pytest.raises(errors.NotAllowed):
        await place.service.acknowledge(SECOND, lease.id, Acknowledge(reason="released"))


async def test_me_says_what_there_is_and_what_one_may_use(place: Place) -> None:
    lease = await place.active()
    me = await place.service.me(ANN)
    assert (me.user, me.admin, [pool.free for pool in me.pools]) == ("ann", False, [0])
    assert [one.id for one in me.leases] == [lease.id]
    assert [(quota.name, quota.used, quota.allowed) for quota in me.quotas] == [
        ("gpus_at_once", 1, 1),
        ("gpu_hours_per_week", 0, None),
        ("longest_lease_hours", None, 12),
    ]
    assert (me.policy.idle_after_seconds, me.policy.keep_times) == (600, 2)


async def test_pools_count_those_who_wait(place: Place) -> None:
    await place.active(ANN)
    await place.ask(BOB)
    [pool] = await place.service.pools(ANN)
    assert (pool.total, pool.free, pool.waiting, pool.simulated) == (1, 0, 1, True)


async def test_leases_come_in_pages_newest_first(place: Place) -> None:
    made = []
    for _ in range(5):
        lease = await place.ask()
        await place.service.release(ANN, lease.id)
        made.insert(0, lease.id)
    assert (await place.service.leases(ANN, ended=False, before=None, limit=2)).leases == []
    seen, before = [], None
    while True:
        page = await place.service.leases(ANN, ended=True, before=before, limit=2)
        seen += [lease.id for lease in page.leases]
        before = page.next
        if before is None:
            break
    assert seen == made
    assert (await place.service.leases(BOB, ended=True, before=made[0], limit=9)).leases == []


async def test_only_operators_see_everybodys_leases(place: Place) -> None:
    await place.active(ANN)
    await place.ask(BOB)
    everybody = await place.service.leases(OPERATOR, ended=False, before=None, limit=9, everyone=True)
    assert [lease.user for lease in everybody.leases] == ["bob", "ann"]
    with pytest.raises(errors.NotAllowed):
        await place.service.leases(ANN, ended=False, before=None, limit=9, everyone=True)


async def test_the_usage_series_begins_with_the_lease(place: Place) -> None:
    await place.later(60)
    lease = await place.active()
    place.gpus.utilisation["SIMULATED-0"] = 70
    place.gpus.processes["SIMULATED-0"] = {7: 1000}
    await place.later(20)
    series = await place.service.usage(ANN, lease.id)
    assert series.utilisation_percent == [70, 70, 70, 70]
    assert series.memory_bytes == [1000] * 4
    assert series.times[0] > START.timestamp() + 60
    shown = (await place.see(lease)).usage
    assert (shown.utilisation_percent, shown.simulated) == (70, True)
    assert [process.pid for process in shown.processes] == [7]


async def test_the_usage_of_several_gpus_is_their_mean_and_their_sum(make_place: MakePlace) -> None:
    place = await make_place(WorkersThatStart(gpus(2)), gpus_at_once=2)
    lease = await place.active(gpus=2)
    place.gpus.utilisation.update({"SIMULATED-0": 100, "SIMULATED-1": 50})
    place.gpus.processes.update({"SIMULATED-0": {7: 1000}, "SIMULATED-1": {7: 500}})
    await place.later(10)
    place.gpus.known.remove("SIMULATED-1")
    await place.later(10)
    series = await place.service.usage(ANN, lease.id)
    assert (series.utilisation_percent, series.memory_bytes) == ([75, 75], [1500, 1500])
