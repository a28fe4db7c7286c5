"""Idle GPUs, Keep, missing telemetry, and clocks that jump."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpulease import errors
from gpulease.states import EndReason, LeaseState
from tests.fakes import GB
from tests.unit.broker.conftest import ANN, BOB, MakePlace, Place


async def test_silence_is_warned_of_then_ends_the_lease(place: Place) -> None:
    lease = await place.active()
    place.gpus.processes["SIMULATED-0"] = {7: 12 * GB}
    await place.later(595)
    assert (await place.see(lease)).warning is None
    await place.later(20)
    warning = (await place.see(lease)).warning
    assert (warning.reason, warning.keep.minutes, warning.keep.times_left) == (EndReason.IDLE, 30, 2)
    assert warning.resident_bytes == 12 * GB
    assert "idle for 10 min" in warning.message
    assert "12.0 GB" in warning.message
    at = warning.at
    await place.later((at - place.clock.now()).total_seconds() - 10)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    await place.later(15)
    ending = await place.see(lease)
    assert (ending.state, ending.reason, ending.warning) == (LeaseState.ENDING, EndReason.IDLE, None)


async def test_use_withdraws_the_warning(place: Place) -> None:
    lease = await place.active()
    await place.later(620)
    assert (await place.see(lease)).warning is not None
    place.gpus.utilisation["SIMULATED-0"] = 5
    await place.later(5)
    assert (await place.see(lease)).warning is None
    await place.later(3600, step=10)
    assert (await place.see(lease)).state is LeaseState.ACTIVE


async def test_a_server_that_says_a_cell_runs_keeps_a_silent_gpu_while_it_goes_on_saying_so(
    place: Place,
) -> None:
    lease = await place.active()
    for _ in range(60):
        await place.service.hint_cell(ANN, lease.id, True)
        await place.later(30)
    assert (await place.see(lease)).warning is None
    await place.later(120)  # it fell silent: it may be gone
    assert (await place.see(lease)).warning is not None
    with pytest.raises(errors.NotFound):
        await place.service.hint_cell(BOB, lease.id, True)


async def test_keep_is_bounded_in_count_and_minutes(place: Place) -> None:
    lease = await place.active()
    await place.later(620)
    kept = await place.service.keep(ANN, lease.id)
    assert kept.warning is None
    await place.later(24 * 60)
    assert (await place.see(lease)).warning is None
    await place.later(3 * 60)
    warning = (await place.see(lease)).warning
    assert warning.keep.times_left == 1
    await place.service.keep(ANN, lease.id)
    with pytest.raises(errors.KeepUsedUp) as refusal:
        await place.service.keep(ANN, lease.id)
    assert refusal.value.message == "You have kept this GPU 2 times already."
    assert refusal.value.details == {"used": 2, "allowed": 2}
    await place.later(31 * 60)
    assert (await place.see(lease)).state is LeaseState.ENDING
    with pytest.raises(errors.LeaseOver):
        await place.service.keep(ANN, lease.id)


async def test_keep_before_there_is_a_gpu_is_a_conflict(place: Place) -> None:
    await place.active(ANN)
    waiting = await place.ask(BOB)
    with pytest.raises(errors.Conflict):
        await place.service.keep(BOB, waiting.id)


async def test_keep_can_be_switched_off(make_place: MakePlace) -> None:
    place = await make_place(keep_minutes=0)
    lease = await place.active()
    with pytest.raises(errors.KeepUsedUp, match="not on offer"):
        await place.service.keep(ANN, lease.id)


async def test_without_telemetry_nobody_is_reclaimed(place: Place) -> None:
    lease = await place.active()
    await place.later(620)
    assert (await place.see(lease)).warning is not None
    place.gpus.known.clear()
    await place.later(20)
    seen = await place.see(lease)
    assert (seen.warning, seen.idle_seconds, seen.usage) == (None, None, None)
    await place.later(4000, step=20)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    place.gpus.known.add("SIMULATED-0")
    await place.later(300)
    assert (await place.see(lease)).warning is None, "silence counts anew after the gap"


async def test_the_longest_time_is_warned_of_and_cannot_be_kept(make_place: MakePlace) -> None:
    place = await make_place(longest_lease_hours=1)
    place.gpus.utilisation["SIMULATED-0"] = 80
    lease = await place.active()
    await place.later(56 * 60, step=10)
    warning = (await place.see(lease)).warning
    assert (warning.reason, warning.keep.times_left) == (EndReason.EXPIRED, 0)
    assert warning.at == lease.ends_at
    with pytest.raises(errors.KeepUsedUp, match="cannot be kept"):
        await place.service.keep(ANN, lease.id)
    await place.later(5 * 60, step=10)
    assert (await place.see(lease)).reason is EndReason.EXPIRED


@pytest.mark.parametrize("hours", [48, -48])
async def test_a_jump_of_the_wall_clock_takes_nobodys_gpu(place: Place, hours: int) -> None:
    lease = await place.active()
    place.gpus.utilisation["SIMULATED-0"] = 50
    await place.later(60)
    place.clock.jump(hours=hours)
    await place.later(60)
    seen = await place.see(lease)
    assert (seen.state, seen.warning) == (LeaseState.ACTIVE, None)


async def test_a_jump_does_not_shorten_a_warning(place: Place) -> None:
    lease = await place.active()
    await place.later(610)
    assert (await place.see(lease)).warning is not None
    place.clock.jump(hours=1)
    await place.later(200)
    assert (await place.see(lease)).state is LeaseState.ACTIVE
    await place.later(110)
    assert (await place.see(lease)).state is LeaseState.ENDING


async def test_a_jump_does_not_shorten_the_time_to_save(place: Place) -> None:
    lease = await place.active()
    await place.later(5)
    await place.service.release(ANN, lease.id)
    await place.turn()
    place.clock.jump(hours=1)
    await place.later(100)
    assert place.backend.stops == []
    await place.later(30)
    assert place.backend.stops == [(lease.id, 60)]


async def test_a_pool_can_have_its_own_patience(make_place: MakePlace) -> None:
    place = await make_place(pools={"simulated": {"idle_after_seconds": 60, "warn_seconds": 20}})
    lease = await place.active()
    await place.later(70)
    warning = (await place.see(lease)).warning
    assert warning.at <= place.clock.now() + timedelta(seconds=20)
    assert "idle for 60 s" in warning.message
