"""What somebody is shown of a lease or a pool: the contract's models from the broker's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from gpuhub.broker import notices
from gpuhub.core.lease import LeaseRecord
from gpuhub.core.ordering import Place
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import PoolNow
from gpuhub.telemetry.base import Sample
from gpulease import models
from gpulease.states import EndReason, LeaseState, Observed


def lease(
    record: LeaseRecord,
    rules: Rules,
    *,
    place: Place | None = None,
    progress: str = "",
    usage: models.Usage | None = None,
    idle_seconds: float | None = None,
    link: bool = False,
) -> models.Lease:
    """Return a lease as it is shown. ``progress``: what holds its start up, if something does.

    ``link``: to its owner's server, which alone may reach the worker."""
    state = record.state
    ending = None
    if state is LeaseState.ENDING:
        ending = models.Ending(
            reason=record.reason or EndReason.RELEASED,
            deadline=record.deadline or record.released_at or record.created_at,
            message=notices.message(record, None),
        )
    shown_link = None
    if link and record.observed is Observed.READY and record.address and record.host_key:
        shown_link = models.Link(address=record.address, host_key=record.host_key)
    return models.Lease(
        id=record.id,
        revision=record.revision,
        user=record.user,
        server=record.server,
        pool=record.pool,
        gpus=record.gpus,
        priority=rules.priority,
        state=state,
        reason=record.reason,
        message=notices.message(record, place.message if place else None, progress),
        created_at=record.created_at,
        granted_at=record.granted_at,
        active_at=record.active_at,
        ends_at=record.ends_at,
        ended_at=record.ended_at,
        position=None if place is None else position(place),
        devices=[models.Device(**asdict(device)) for device in record.devices],
        link=shown_link,
        needs_key=state is LeaseState.STARTING and record.public_key is None,
        warning=_warning(record, rules),
        ending=ending,
        usage=usage,
        idle_seconds=idle_seconds,
    )


def position(place: Place) -> models.Position:
    return models.Position(
        place=place.place,
        ahead=place.ahead,
        waiting_for=place.waiting_for,
        message=place.message,
        estimated_start=place.estimated_start,
    )


def keeps(record: LeaseRecord, rules: Rules) -> models.Keep:
    """Return what is left of the right to keep; nothing where Keep is no answer."""
    warned = record.warned
    if (warned is not None and warned.reason is not EndReason.IDLE) or rules.keep_minutes == 0:
        return models.Keep(minutes=0, times_left=0)
    return models.Keep(minutes=rules.keep_minutes, times_left=max(0, rules.keep_times - record.keeps_used))


def _warning(record: LeaseRecord, rules: Rules) -> models.Warn | None:
    warned = record.warned
    if warned is None or record.state is not LeaseState.ACTIVE:
        return None
    return models.Warn(
        reason=warned.reason,
        at=warned.at,
        message=notices.warning(record, warned, rules),
        keep=keeps(record, rules),
        resident_bytes=warned.resident_bytes,
    )


def usage(samples: Sequence[Sample]) -> models.Usage | None:
    """Return the last telemetry of a lease's GPUs as one; None where nothing is known."""
    if not samples:
        return None
    return models.Usage(
        at=datetime.fromtimestamp(max(sample.at for sample in samples), UTC),
        utilisation_percent=sum(sample.utilisation_percent for sample in samples) / len(samples),
        memory_bytes=sum(sample.memory_bytes for sample in samples),
        memory_total_bytes=sum(sample.memory_total_bytes for sample in samples),
        simulated=any(sample.simulated for sample in samples),
        processes=[
            models.ProcessUse(pid=process.pid, name=process.name, memory_bytes=process.memory_bytes)
            for sample in samples
            for process in sample.processes
        ],
    )


def pool(now: PoolNow, waiting: int) -> models.Pool:
    return models.Pool(
        name=now.name,
        title=now.title,
        memory_bytes=now.memory_bytes,
        simulated=now.simulated,
        total=now.total,
        free=now.free_count if now.works else 0,
        waiting=waiting,
    )
