"""What happens to a held lease: one test per sentence of the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpuhub.core.lease import Warned
from gpuhub.core.policy import Activate, Close, End, StartWorker, StopWorker, Unwarn, Warn, decide
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Held, WorkerNow
from gpulease.states import EndReason, Observed
from tests.builders import (
    GB,
    KEY,
    NOW,
    active,
    ago,
    ahead,
    ending,
    pool,
    queued,
    snapshot,
    starting,
    warned,
    week,
)


def decided(held: Held, **fields):
    found = decide(snapshot(held, **fields), NOW)
    assert len(found) <= 1
    return found[0] if found else None


# --- starting


def test_a_granted_lease_with_a_key_gets_a_worker() -> None:
    held = starting()
    assert decided(held) == StartWorker(held.record.id)


def test_without_the_servers_key_the_worker_waits() -> None:
    assert decided(starting(public_key=None, since_grant_seconds=170.0)) is None


def test_a_key_that_does_not_come_in_time_ends_the_lease() -> None:
    end = decided(starting(public_key=None, since_grant_seconds=181.0))
    assert isinstance(end, End)
    assert (end.reason, end.deadline) == (EndReason.FAILED, NOW)


def test_a_worker_on_its_way_is_waited_for() -> None:
    assert decided(starting(worker=WorkerNow("starting"), told_key=KEY)) is None


def test_a_ready_worker_makes_the_lease_active() -> None:
    held = starting(worker=WorkerNow("ready", "unix:/x"), told_key=KEY)
    assert decided(held) == Activate(held.record.id, "unix:/x")


def test_a_ready_worker_that_knows_an_old_key_hears_the_new_one_first() -> None:
    held = starting(worker=WorkerNow("ready", "unix:/x"), told_key="ssh-ed25519 old")
    assert decided(held) == StartWorker(held.record.id)


def test_a_worker_that_is_not_ready_in_time_ends_the_lease() -> None:
    end = decided(starting(worker=WorkerNow("starting"), told_key=KEY, since_key_seconds=301.0))
    assert isinstance(end, End)
    assert end.reason is EndReason.FAILED
    assert "300 seconds" in end.message


def test_a_worker_that_waits_for_room_is_not_failing_however_long_it_takes() -> None:
    waits = WorkerNow("starting", message="It waits for a free GPU in the cluster.", waiting=True)
    assert decided(starting(worker=waits, told_key=KEY, since_key_seconds=90_000.0)) is None


def test_a_worker_that_waits_hears_of_its_servers_new_key() -> None:
    waits = WorkerNow("starting", waiting=True)
    held = starting(worker=waits, told_key="ssh-ed25519 old", since_key_seconds=90_000.0)
    assert decided(held) == StartWorker(held.record.id)


def test_a_worker_that_waits_ends_with_its_server() -> None:
    held = starting(worker=WorkerNow("starting", waiting=True), told_key=KEY, server_gone=True)
    assert decided(held) == End(held.record.id, EndReason.SERVER_STOPPED, NOW)


def test_a_worker_that_waits_is_stopped_when_the_lease_is_given_back() -> None:
    held = ending(worker=WorkerNow("starting", waiting=True), observed=Observed.GRANTED, acknowledged_at=NOW)
    assert decided(held) == StopWorker(held.record.id, 60)


def test_a_start_that_was_refused_for_too_long_ends_with_the_places_own_words() -> None:
    held = starting(refusal="The cluster's limit of GPUs for this hub is used up.", since_key_seconds=301.0)
    end = decided(held)
    assert isinstance(end, End)
    assert end.message.endswith("within 300 seconds. The cluster's limit of GPUs for this hub is used up.")


def test_a_start_that_was_refused_is_asked_for_again_meanwhile() -> None:
    held = starting(refusal="The cluster is busy; it is tried again.", since_key_seconds=100.0)
    assert decided(held) == StartWorker(held.record.id)


def test_a_worker_that_exited_fails_the_lease_with_its_message() -> None:
    held = active(worker=WorkerNow("exited", message="It ended with status 7."))
    assert decided(held) == Close(held.record.id, EndReason.FAILED, "It ended with status 7.")


def test_one_look_without_the_worker_ends_nothing() -> None:
    assert decided(active(worker=None, missing_seconds=0.0)) is None


def test_a_worker_that_stays_away_is_lost() -> None:
    close = decided(active(worker=None, missing_seconds=6.0))
    assert isinstance(close, Close)
    assert close.reason is EndReason.FAILED


def test_a_new_key_is_told_to_the_running_worker() -> None:
    held = active(told_key="ssh-ed25519 old")
    assert decided(held) == StartWorker(held.record.id)


def test_a_server_that_is_gone_ends_the_lease_at_once() -> None:
    held = active(server_gone=True)
    assert decided(held) == End(held.record.id, EndReason.SERVER_STOPPED, NOW)


# --- idle


def test_silence_below_the_limit_is_nothing() -> None:
    assert decided(active(silent_seconds=599.0)) is None


def test_silence_for_the_whole_time_is_warned_of() -> None:
    held = active(silent_seconds=600.0, resident_bytes=12 * GB)
    expected = Warned(EndReason.IDLE, ahead(seconds=300), 12 * GB)
    assert decided(held) == Warn(held.record.id, expected)


def test_a_warning_is_given_once() -> None:
    assert decided(warned(active(silent_seconds=700.0), EndReason.IDLE, 200.0)) is None


def test_use_after_a_warning_withdraws_it() -> None:
    held = warned(active(silent_seconds=0.0), EndReason.IDLE, 200.0)
    assert decided(held) == Unwarn(held.record.id)


def test_silence_to_the_end_of_the_warning_ends_the_lease() -> None:
    held = warned(active(silent_seconds=901.0), EndReason.IDLE, 0.0)
    assert decided(held) == End(held.record.id, EndReason.IDLE, ahead(seconds=120))


def test_nobody_is_ended_for_silence_that_was_not_seen_to_the_end_of_the_warning() -> None:
    """A short warning may be over before the next sample: its holder may just have begun to work again."""
    rules = Rules(warn_seconds=5)
    told = warned(active("ann", rules, silent_seconds=600.0), EndReason.IDLE, -8.0)
    assert decided(told) is None
    seen = warned(active("ann", rules, silent_seconds=605.0), EndReason.IDLE, -8.0)
    assert decided(seen) == End(seen.record.id, EndReason.IDLE, ahead(seconds=120))
    used = warned(active("ann", rules, silent_seconds=0.0), EndReason.IDLE, -8.0)
    assert decided(used) == Unwarn(used.record.id)


def test_without_telemetry_nobody_is_warned() -> None:
    assert decided(active(silent_seconds=None)) is None


def test_without_telemetry_nobody_is_reclaimed_though_the_countdown_is_over() -> None:
    held = warned(active(silent_seconds=None), EndReason.IDLE, -10.0)
    assert decided(held) == Unwarn(held.record.id)


def test_a_countdown_that_ran_out_during_use_ends_nothing() -> None:
    held = warned(active(silent_seconds=2.0), EndReason.IDLE, -10.0)
    assert decided(held) == Unwarn(held.record.id)


def test_a_kept_gpu_is_not_warned_of() -> None:
    assert decided(active(silent_seconds=2000.0, kept_for_seconds=1200.0)) is None


def test_the_warning_comes_before_the_kept_time_is_over() -> None:
    held = active(silent_seconds=2000.0, kept_for_seconds=250.0)
    assert decided(held) == Warn(held.record.id, Warned(EndReason.IDLE, ahead(seconds=250)))


def test_a_running_cell_is_not_cut_for_a_silent_gpu_while_nobody_waits() -> None:
    held = warned(active(silent_seconds=90_000.0, cell_running=True), EndReason.IDLE, -10.0)
    assert decided(held) == Unwarn(held.record.id)


def test_a_running_cell_is_warned_when_somebody_waits_and_it_used_no_gpu_for_the_grace() -> None:
    held = active(silent_seconds=1800.0, cell_running=True)
    world = snapshot(held, queued("bob"), pools=(pool(),))
    assert decide(world, NOW) == [Warn(held.record.id, Warned(EndReason.IDLE, ahead(seconds=300)))]
    sooner = active(silent_seconds=1799.0, cell_running=True)
    assert decide(snapshot(sooner, queued("bob"), pools=(pool(),)), NOW) == []


def test_somebody_who_waits_for_another_pool_does_not_end_a_running_cell() -> None:
    held = active(silent_seconds=90_000.0, cell_running=True)
    other = queued("bob", pool="other")
    assert decide(snapshot(held, other, pools=(pool(), pool(name="other"))), NOW) == []


def test_the_deadline_grows_with_what_must_be_saved() -> None:
    held = warned(active(silent_seconds=901.0, resident_bytes=200 * GB), EndReason.IDLE, 0.0)
    assert decided(held) == End(held.record.id, EndReason.IDLE, ahead(seconds=240))


# --- the longest time, and the week's hours


def test_the_longest_time_is_warned_of() -> None:
    held = active(ends_in_seconds=299.0)
    assert decided(held) == Warn(held.record.id, Warned(EndReason.EXPIRED, ahead(seconds=299)))


def test_the_longest_time_ends_the_lease_also_while_it_is_used() -> None:
    held = warned(active(ends_in_seconds=0.0), EndReason.EXPIRED, 0.0)
    end = decided(held)
    assert isinstance(end, End)
    assert end.reason is EndReason.EXPIRED


def test_nobody_is_ended_without_a_warning_even_when_the_time_passed_while_nobody_looked() -> None:
    held = active(ends_in_seconds=-5000.0)
    assert decided(held) == Warn(held.record.id, Warned(EndReason.EXPIRED, ahead(seconds=300)))
    later = warned(held, EndReason.EXPIRED, 10.0)
    assert decided(later) is None


def test_the_earlier_end_is_the_one_that_is_announced() -> None:
    held = active(silent_seconds=600.0, ends_in_seconds=100.0)
    assert decided(held).warned.reason is EndReason.EXPIRED
    told = warned(active(silent_seconds=700.0, ends_in_seconds=100.0), EndReason.IDLE, 200.0)
    assert decided(told).warned.reason is EndReason.EXPIRED


def test_use_does_not_withdraw_the_warning_of_the_longest_time() -> None:
    assert decided(warned(active(ends_in_seconds=100.0), EndReason.EXPIRED, 100.0)) is None


def test_an_idle_warning_gives_way_to_a_limit_when_the_gpu_is_used() -> None:
    held = warned(active(silent_seconds=0.0, ends_in_seconds=250.0), EndReason.IDLE, 100.0)
    assert decided(held).warned == Warned(EndReason.EXPIRED, ahead(seconds=250))


def test_a_longer_end_withdraws_the_warning() -> None:
    held = warned(active(ends_in_seconds=5000.0), EndReason.EXPIRED, 100.0)
    assert decided(held) == Unwarn(held.record.id)


def test_the_weeks_hours_are_warned_of_and_end_the_lease() -> None:
    rules = Rules(gpu_hours_per_week=2)
    held = active("ann", rules)
    spent = {"ann": week((ago(hours=4), ago(hours=2, minutes=2), 1))}
    warn = decided(held, week=spent)
    assert warn.warned.reason is EndReason.QUOTA
    assert (warn.warned.at - NOW).total_seconds() == pytest.approx(120)
    over = {"ann": week((ago(hours=5), ago(hours=2), 1))}
    end = decided(warned(held, EndReason.QUOTA, 0.0), week=over)
    assert (type(end), end.reason) == (End, EndReason.QUOTA)


# --- ending


def test_before_the_servers_word_or_the_deadline_the_worker_goes_on() -> None:
    assert decided(ending()) is None


def test_the_servers_word_stops_the_worker() -> None:
    held = ending(acknowledged_at=NOW)
    assert decided(held) == StopWorker(held.record.id, 60)


def test_the_deadline_stops_the_worker() -> None:
    held = ending(deadline_in_seconds=0.0)
    assert decided(held) == StopWorker(held.record.id, 60)


def test_a_worker_that_was_told_is_given_its_grace_then_told_again() -> None:
    told = ending(acknowledged_at=NOW, worker=WorkerNow("stopping"), observed=Observed.STOPPING)
    assert decided(replace(told, since_stop_seconds=60.0)) is None
    assert decided(replace(told, since_stop_seconds=71.0)) == StopWorker(told.record.id, 60)


def test_a_stopped_worker_closes_the_lease_with_its_reason() -> None:
    held = ending(reason=EndReason.IDLE, worker=WorkerNow("exited", message="The worker has ended."))
    assert decided(held) == Close(held.record.id, EndReason.IDLE)


def test_a_worker_that_dies_while_it_is_emptied_closes_the_lease() -> None:
    held = ending(worker=WorkerNow("exited", message="signal 9"))
    assert decided(held) == Close(held.record.id, EndReason.RELEASED)


def test_a_released_lease_without_a_worker_is_over() -> None:
    held = ending(worker=None, observed=Observed.GRANTED)
    assert decided(held) == Close(held.record.id, EndReason.RELEASED)


def test_a_start_that_is_still_on_its_way_is_waited_for() -> None:
    assert decided(ending(worker=None, observed=Observed.GRANTED, order_pending=True)) is None


def test_an_ending_lease_is_not_warned_again() -> None:
    assert decided(ending(silent_seconds=5000.0, ends_in_seconds=0.0)) is None
