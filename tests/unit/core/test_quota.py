"""Limits: what is refused, with which numbers, and when it frees up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhub.core.quota import WEEK, Span, WeekUse, refusal, week_ends_in_seconds
from gpuhub.core.rules import Rules
from tests.builders import NOW, active, ago, ahead, ending, queued, week


def refused(gpus: int = 1, *own, rules: Rules | None = None, spent: WeekUse | None = None):
    return refusal(gpus, rules or Rules(), [one.record for one in own], spent or WeekUse(), NOW)


def test_within_all_limits_nothing_is_refused() -> None:
    assert refused() is None


def test_gpus_at_once_counts_what_is_held_and_what_waits() -> None:
    no = refused(1, active(gpus=1), queued(gpus=1), rules=Rules(gpus_at_once=2))
    assert (no.limit, no.used, no.allowed, no.unit) == ("gpus_at_once", 2, 2, "gpus")
    assert no.message == "You may use 2 GPUs at once, and you have or wait for 2."


def test_a_lease_on_its_way_out_does_not_count() -> None:
    assert refused(1, ending()) is None


def test_the_refusal_says_when_the_first_of_ones_leases_ends() -> None:
    no = refused(1, active(ends_at=ahead(hours=3)))
    assert no.retry_at == ahead(hours=3)
    assert no.details()["retry_at"] == ahead(hours=3).isoformat()


def test_more_than_is_ever_allowed_has_no_time_to_try_again() -> None:
    no = refused(1000, rules=Rules(gpus_at_once=4))
    assert no.message == "You may use 4 GPUs at once; you asked for 1000."
    assert no.retry_at is None


def test_who_may_use_none_is_told_so() -> None:
    assert refused(1, rules=Rules(gpus_at_once=0)).message == "You may not use GPUs here."


def test_leases_at_once_is_a_limit_of_its_own() -> None:
    rules = Rules(gpus_at_once=None, leases_at_once=2)
    no = refused(1, active(), queued(), rules=rules)
    assert (no.limit, no.used, no.allowed) == ("leases_at_once", 2, 2)


def test_the_rolling_week_counts_gpus_times_hours() -> None:
    spent = week((ago(hours=10), ago(hours=7), 2))
    assert spent.hours(NOW) == pytest.approx(6)


def test_what_was_held_longer_than_seven_days_ago_does_not_count() -> None:
    spent = week((ago(days=8), ago(days=7) + timedelta(hours=1), 1), (ago(days=20), ago(days=15), 8))
    assert spent.hours(NOW) == pytest.approx(1)


def test_a_lease_that_goes_on_counts_until_now() -> None:
    assert week((ago(hours=2), None, 3)).hours(NOW) == pytest.approx(6)


def test_used_up_hours_are_refused_with_the_time_when_some_come_back() -> None:
    spent = week((ago(days=6), ago(days=6) + timedelta(hours=5), 1))
    no = refused(1, rules=Rules(gpu_hours_per_week=5), spent=spent)
    assert (no.limit, no.used, no.allowed, no.unit) == ("gpu_hours_per_week", 5, 5, "hours")
    assert no.retry_at == ago(days=6) + WEEK


def test_how_long_the_hours_last_depends_on_the_gpus_held() -> None:
    rules = Rules(gpu_hours_per_week=10)
    assert week_ends_in_seconds(rules, week((ago(hours=2), None, 1)), 2, NOW) == 4 * 3600
    assert week_ends_in_seconds(Rules(), week(), 2, NOW) is None


spans = st.builds(
    lambda start, hours, gpus: Span(
        NOW - timedelta(hours=start), NOW - timedelta(hours=max(0.0, start - hours)), gpus
    ),
    st.floats(0.1, 300),
    st.floats(0.1, 100),
    st.integers(1, 8),
)


@given(st.lists(spans, max_size=8), st.floats(0.5, 400))
def test_at_the_time_given_the_use_is_indeed_down_to_what_is_allowed(
    found: list[Span], allowed: float
) -> None:
    use = WeekUse(tuple(found))
    at = use.below_at(allowed, NOW)
    assert at is not None
    assert use.hours(at) <= allowed + 1e-3
    if at > NOW:
        assert use.hours(at - timedelta(seconds=60)) >= allowed - 1e-3
