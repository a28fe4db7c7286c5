"""Limits by person: what is used, what is allowed, when it frees up, and the refusal in words.

Everything counts by person over all his servers. GPU-hours are GPUs times hours held within the
last seven days, a rolling window: what was held longer ago than that comes back by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gpuhub.core.lease import LeaseRecord
from gpuhub.core.rules import Rules
from gpulease.states import Wanted

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Span:
    """GPUs held from ``start`` to ``end``; an ``end`` of None is still going on."""

    start: datetime
    end: datetime | None
    gpus: int


@dataclass(frozen=True)
class WeekUse:
    """One person's spans of the last seven days, those of live leases included."""

    spans: tuple[Span, ...] = ()

    def hours(self, now: datetime) -> float:
        """Return the GPU-hours within the seven days before ``now``."""
        return sum(_seconds(span, now) * span.gpus for span in self.spans) / 3600

    def below_at(self, allowed: float, now: datetime) -> datetime | None:
        """Return when the use falls below ``allowed`` hours if nothing more is used; None: not within a week.

        The window's trailing edge moves over the old spans; each gives back GPUs x time as it passes.
        """
        excess = (self.hours(now) - allowed) * 3600
        if excess < 0:
            return now
        edges: list[tuple[datetime, int]] = []
        for span in self.spans:
            start, end = max(span.start, now - WEEK), min(span.end or now, now)
            if end > start:
                edges += [(start, span.gpus), (end, -span.gpus)]
        edges.sort(key=lambda edge: edge[0])
        at, rate = now - WEEK, 0
        for moment, change in edges:
            given_back = (moment - at).total_seconds() * rate
            if rate and given_back > excess:
                return at + timedelta(seconds=excess / rate) + WEEK
            excess, at, rate = excess - given_back, moment, rate + change
        return at + WEEK if edges and excess <= 1e-6 else None


def _seconds(span: Span, now: datetime) -> float:
    end = now if span.end is None else min(span.end, now)
    return max(0.0, (end - max(span.start, now - WEEK)).total_seconds())


@dataclass(frozen=True)
class Refusal:
    """A limit that says no: a sentence, and the numbers behind it."""

    message: str
    limit: str
    used: float
    allowed: float
    unit: str
    retry_at: datetime | None = None

    def details(self) -> dict[str, Any]:
        return {
            "limit": self.limit,
            "used": self.used,
            "allowed": self.allowed,
            "unit": self.unit,
            "retry_at": None if self.retry_at is None else self.retry_at.isoformat(),
        }


def refusal(
    gpus: int, rules: Rules, own: Sequence[LeaseRecord], week: WeekUse, now: datetime
) -> Refusal | None:
    """Return why a request for ``gpus`` more is refused, or None. ``own``: the person's live leases.

    A lease that is on its way out does not count here: who has released may ask again at once (and
    waits in the queue until it is gone).
    """
    live = [record for record in own if record.wanted is Wanted.HELD and not record.gone]
    ends = [record.ends_at for record in live if record.ends_at is not None]
    first_end = min(ends) if ends and len(ends) == len(live) else None
    used = sum(record.gpus for record in live)
    allowed = rules.gpus_at_once
    if allowed is not None and used + gpus > allowed:
        if allowed == 0:
            text = "You may not use GPUs here."
        elif gpus > allowed:
            text = f"You may use {_count(allowed)} at once; you asked for {gpus}."
            first_end = None
        else:
            text = f"You may use {_count(allowed)} at once, and you have or wait for {used}."
        return Refusal(text, "gpus_at_once", used, allowed, "gpus", first_end if allowed else None)
    if len(live) + 1 > rules.leases_at_once:
        text = f"You may have {rules.leases_at_once} leases at once, and you have {len(live)}."
        return Refusal(text, "leases_at_once", len(live), rules.leases_at_once, "leases", first_end)
    hours = rules.gpu_hours_per_week
    if hours is not None:
        spent = week.hours(now)
        if spent >= hours:
            text = f"You have used {spent:.1f} of {hours:g} GPU-hours within seven days."
            retry_at = week.below_at(hours, now)
            return Refusal(text, "gpu_hours_per_week", round(spent, 2), hours, "hours", retry_at)
    return None


def may_start(gpus: int, rules: Rules, held_gpus: int, week: WeekUse | None, now: datetime) -> str | None:
    """Return the name of the limit that holds a queued lease back, or None.

    ``held_gpus`` counts what the person really holds now, leases that are ending included.
    """
    if rules.gpus_at_once is not None and held_gpus + gpus > rules.gpus_at_once:
        return "gpus_at_once"
    if (
        rules.gpu_hours_per_week is not None
        and week is not None
        and week.hours(now) >= rules.gpu_hours_per_week
    ):
        return "gpu_hours_per_week"
    return None


def week_ends_in_seconds(rules: Rules, week: WeekUse | None, held_gpus: int, now: datetime) -> float | None:
    """Return how long a person can hold ``held_gpus`` until his GPU-hours are used up; None: no limit."""
    if rules.gpu_hours_per_week is None or week is None or held_gpus <= 0:
        return None
    return (rules.gpu_hours_per_week - week.hours(now)) * 3600 / held_gpus


def spans_of(records: Iterable[LeaseRecord]) -> list[Span]:
    """Return the spans of live leases that have been granted."""
    return [
        Span(record.granted_at, record.ended_at, record.gpus)
        for record in records
        if record.granted_at is not None
    ]


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"
