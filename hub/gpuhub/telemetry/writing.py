"""What a node's agent saw, written down for the broker so that it fits into one request.

Pure. Promises: a report that the broker's form takes, whatever the driver answered: what the form does not
allow (a number out of all bounds) is left out, and what does not fit goes in the order of its worth: older
looks first, then the smallest processes. A sample without its processes is still true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gpuhub.telemetry.base import Sample
from gpuhub.telemetry.looking import Seen
from gpuhub.telemetry.podresources import PodGpus
from gpuhub.telemetry.report import (
    MAX_DEVICES,
    MAX_PODS,
    MAX_PROBLEM,
    MAX_PROCESSES,
    AllocationReport,
    DeviceReport,
    LookReport,
    NodeReport,
    ProcessReport,
    SampleReport,
)
from gpulease.models import MAX_BODY_BYTES

BODY_BYTES = MAX_BODY_BYTES - 1024

M = TypeVar("M", bound=BaseModel)


def report_body(kept: Sequence[Seen], now: float) -> bytes:
    """Return the report of what is kept as JSON. ``now``: of the clock of `Seen.at`."""
    looks, processes = list(kept), MAX_PROCESSES
    while True:
        body = make_report(looks, now, processes).model_dump_json(exclude_none=True).encode()
        if len(body) <= BODY_BYTES or (len(looks) == 1 and not processes):
            return body
        if len(looks) > 1:
            del looks[0]
        else:
            processes //= 2


def make_report(looks: Sequence[Seen], now: float, processes: int = MAX_PROCESSES) -> NodeReport:
    """Return what the broker is told; the newest look is last. Raises `ValueError` for none at all."""
    if not looks:
        raise ValueError("there is no look to report")
    newest = looks[-1]
    return NodeReport(
        problem=None if newest.problem is None else newest.problem[:MAX_PROBLEM],
        devices=_those_that_fit(
            DeviceReport,
            (
                {
                    "id": gpu.id,
                    "index": gpu.index,
                    "name": gpu.name,
                    "memory_bytes": gpu.memory_bytes,
                    "simulated": gpu.simulated,
                }
                for gpu in newest.gpus[:MAX_DEVICES]
            ),
        ),
        looks=[
            LookReport(
                age_seconds=round(max(0.0, now - seen.at), 3),
                samples=_those_that_fit(
                    SampleReport, (_sample(sample, processes) for sample in seen.samples)
                ),
            )
            for seen in looks
        ],
        allocations=None if newest.pods is None else _allocations(newest, newest.pods),
    )


def _allocations(seen: Seen, pods: Sequence[PodGpus]) -> list[AllocationReport]:
    return _those_that_fit(
        AllocationReport,
        (
            {
                "namespace": pod.namespace,
                "pod": pod.pod,
                "uid": seen.uids.get((pod.namespace, pod.pod)),
                "devices": list(pod.device_ids),
            }
            for pod in pods[:MAX_PODS]
        ),
    )


def _sample(sample: Sample, most: int) -> dict[str, Any]:
    largest = sorted(sample.processes, key=lambda one: one.memory_bytes, reverse=True)[:most]
    return {
        "device": sample.device_id,
        "utilisation_percent": round(sample.utilisation_percent, 2),
        "memory_bytes": sample.memory_bytes,
        "power_watts": sample.power_watts,
        "processes": _those_that_fit(
            ProcessReport,
            (
                {
                    "pid": one.pid,
                    "name": one.name,
                    "memory_bytes": one.memory_bytes,
                    "utilisation_percent": one.utilisation_percent,
                    "pod_uid": one.pod_uid,
                }
                for one in largest
            ),
        ),
    }


def _those_that_fit(model: type[M], parts: Iterable[dict[str, Any]]) -> list[M]:
    found = []
    for part in parts:
        try:
            found.append(model.model_validate(part))
        except ValidationError:
            continue  # one odd answer of the driver must not cost all the others
    return found
