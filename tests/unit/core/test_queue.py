"""Who is next, and what each one waits for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpuhub.core.ordering import places
from gpuhub.core.policy import Close, Grant, decide
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Queued, Snapshot
from gpulease.states import EndReason
from tests.builders import NOW, active, ago, ahead, ending, pool, queued, snapshot, week

FREE = Rules(gpus_at_once=None)


def granted(world: Snapshot) -> dict[str, tuple[str, ...]]:
    return {one.lease_id: one.device_ids for one in decide(world, NOW) if isinstance(one, Grant)}


def place_of(one: Queued, world: Snapshot):
    return places(world, NOW)[one.record.id]


def test_a_free_gpu_goes_to_who_came_first() -> None:
    first, second = queued("ann"), queued("bob")
    world = snapshot(second, first, pools=(pool(2, free=1),))
    assert granted(world) == {first.record.id: ("SIMULATED-1",)}


def test_a_higher_priority_is_served_first_and_within_it_the_first() -> None:
    normal = queued("ann")
    high_one = queued("bob", Rules(priority="high", rank=10))
    high_two = queued("cyd", Rules(priority="high", rank=10))
    world = snapshot(normal, high_one, high_two, pools=(pool(2, free=2),))
    assert set(granted(world)) == {high_one.record.id, high_two.record.id}


def test_nothing_is_granted_twice() -> None:
    leases = [queued(f"u{n}") for n in range(5)]
    found = granted(snapshot(*leases, pools=(pool(3, free=3),)))
    given = [device for devices in found.values() for device in devices]
    assert len(found) == 3
    assert len(given) == len(set(given))


def test_each_pool_has_its_own_queue() -> None:
    waits, other = queued("ann"), queued("bob", pool="big")
    world = snapshot(waits, other, pools=(pool(1), pool(1, free=1, name="big")))
    assert granted(world) == {other.record.id: ("BIG-0",)}
    assert place_of(other, world).place == 1
    assert place_of(waits, world).place == 1


def test_nobody_overtakes_a_request_for_several_gpus() -> None:
    big, small = queued("ann", FREE, gpus=2), queued("bob", FREE)
    world = snapshot(big, small, pools=(pool(2, free=1),))
    assert granted(world) == {}
    assert place_of(small, world).ahead == 1
    assert "1 of 2 simulated GPUs are free, which is not enough" in place_of(big, world).message


def test_a_request_for_more_than_works_now_is_passed_by() -> None:
    big, small = queued("ann", FREE, gpus=2), queued("bob", FREE)
    world = snapshot(big, small, pools=(pool(1, free=1),))
    assert set(granted(world)) == {small.record.id}
    place = place_of(big, world)
    assert place.waiting_for == "pool"
    assert place.message == (
        "You asked for 2 simulated GPUs, and only 1 works at the moment. Your place is kept."
    )


def test_who_is_held_back_by_his_own_limit_is_passed_by() -> None:
    leaving = ending("ann")
    again, next_one = queued("ann"), queued("bob")
    world = snapshot(leaving, again, next_one, pools=(pool(2, free=1),))
    assert set(granted(world)) == {next_one.record.id}
    place = place_of(again, world)
    assert (place.place, place.waiting_for) == (1, "quota")
    assert "may not use more at once" in place.message


def test_two_requests_of_one_person_cannot_both_fit_into_one_limit() -> None:
    one, two = queued("ann"), queued("ann", server="second")
    assert set(granted(snapshot(one, two, pools=(pool(2, free=2),)))) == {one.record.id}


def test_used_up_gpu_hours_hold_back_and_say_so() -> None:
    lease = queued("ann", Rules(gpu_hours_per_week=2))
    spent = {"ann": week((ago(hours=5), ago(hours=3), 1))}
    world = snapshot(lease, pools=(pool(1, free=1),), week=spent)
    assert granted(world) == {}
    assert place_of(lease, world).waiting_for == "quota"
    assert "GPU-hours" in place_of(lease, world).message


def test_a_pool_that_does_not_answer_grants_nothing_and_keeps_places() -> None:
    lease = queued("ann")
    world = snapshot(lease, pools=(pool(1, free=1, works=False),))
    assert granted(world) == {}
    assert place_of(lease, world).waiting_for == "pool"


def test_a_queued_lease_whose_server_is_gone_ends_and_gets_nothing() -> None:
    gone, stays = queued("ann", server_gone=True), queued("bob")
    decisions = decide(snapshot(gone, stays, pools=(pool(1, free=1),)), NOW)
    assert Close(gone.record.id, EndReason.SERVER_STOPPED) in decisions
    assert [one.lease_id for one in decisions if isinstance(one, Grant)] == [stays.record.id]


def test_where_a_scheduler_chooses_devices_only_their_number_counts() -> None:
    lease, second = queued("ann"), queued("bob")
    cluster = pool(4, devices=(), free_count=1)
    assert granted(snapshot(lease, second, pools=(cluster,))) == {lease.record.id: ()}


@pytest.mark.parametrize(
    ("ahead_count", "text"),
    [
        (0, "You are next; the only simulated GPU is in use."),
        (1, "1 request is ahead of yours; the only simulated GPU is in use."),
        (3, "3 requests are ahead of yours; the only simulated GPU is in use."),
    ],
)
def test_the_message_counts_those_ahead_and_names_nobody(ahead_count: int, text: str) -> None:
    before = [queued(f"person{n}") for n in range(ahead_count)]
    mine = queued("ann")
    place = place_of(mine, snapshot(*before, mine, active("bob")))
    assert (place.place, place.ahead, place.message) == (ahead_count + 1, ahead_count, text)


def test_the_estimate_is_never_later_than_the_latest_end() -> None:
    holds = active("bob", ends_in_seconds=600.0, since_grant_seconds=0.0)
    mine = queued("ann")
    world = snapshot(holds, mine, pools=(pool(1, typical_seconds=3600.0),))
    assert place_of(mine, world).estimated_start == ahead(seconds=600)


def test_the_latest_end_alone_is_no_estimate() -> None:
    holds = active("bob", ends_in_seconds=12 * 3600.0)
    mine = queued("ann")
    assert place_of(mine, snapshot(holds, mine)).estimated_start is None


def test_the_estimate_plays_the_queue_forward_by_what_is_typical() -> None:
    holds = active("bob", ends_in_seconds=600.0, since_grant_seconds=0.0)
    one, two = queued("ann"), queued("cyd")
    world = snapshot(holds, one, two, pools=(pool(1, typical_seconds=300.0),))
    assert place_of(one, world).estimated_start == ahead(seconds=300)
    assert place_of(two, world).estimated_start == ahead(seconds=600)


def test_without_a_known_end_nothing_is_estimated() -> None:
    mine = queued("ann")
    assert place_of(mine, snapshot(active("bob"), mine)).estimated_start is None


def test_a_free_gpu_is_estimated_for_now() -> None:
    mine = queued("ann")
    place = place_of(mine, snapshot(mine, pools=(pool(1, free=1),)))
    assert (place.estimated_start, place.message) == (NOW, "You are next; a simulated GPU is being prepared.")


def test_places_are_the_order_in_which_grants_are_made() -> None:
    leases = [queued(f"u{n}", Rules(rank=n % 3)) for n in range(30)]
    found = places(snapshot(*leases), NOW)
    expected = sorted(leases, key=lambda one: found[one.record.id].place)
    world, order = list(leases), []
    while world:
        [(lease_id, _)] = granted(snapshot(*world, pools=(pool(1, free=1),))).items()
        order.append(lease_id)
        world = [one for one in world if one.record.id != lease_id]
    assert order == [one.record.id for one in expected]


def test_ten_thousand_in_the_queue_are_decided_within_a_turn() -> None:
    """Not a race against the clock: a quadratic decision would take minutes and fail by the time limit."""
    leases = [queued(f"u{n % 500}", FREE) for n in range(10_000)]
    world = snapshot(*leases, pools=(pool(64, free=64),))
    assert len(granted(world)) == 64
    assert len(places(world, NOW)) == 10_000


def test_an_end_that_is_announced_counts_for_the_estimate() -> None:
    leaves = ending("bob", deadline_in_seconds=20.0)
    mine = queued("ann")
    assert place_of(mine, snapshot(leaves, mine)).estimated_start == NOW + timedelta(seconds=20)
