"""What a node's agent saw, written down for the broker so that it fits into one request.

Pure. Promises: a report that the broker's form takes, whatever the driver answered: what the form does not
allow (a number out of all bounds) is left out, and what does not fit goes in the order of its worth: older
looks first, then the smallest processes. A sample without its processes is still true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gpuhub.telemetry.base import Sample
from gpuhub.telemetry.looking import Seen
from gpuhub.telemetry.podresources import PodGpus
from gpuhub.telemetry.report import (
    MAX_AGE_SECONDS,
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
    """Return the report of what is kept as JSON. ``now``: of the clock of `Seen.at`.

    Raises `ValueError` for nothing at all.
    """
    if not kept:
        raise ValueError("there is no look to report")
    *older, newest = kept
    frame = _frame(newest)
    if len(_json(frame)) > BODY_BYTES // 2:
        said = frame.get("problem", "")
        frame["problem"] = f"There are more pods with GPUs here than fit into a report. {said}"[:MAX_PROBLEM]
        frame["allocations"] = None
    room = BODY_BYTES - len(_json(frame)) - len(b',"looks":[]')
    texts = [_json(_shortened(_look(newest, now), room))]
    room -= len(texts[0])
    for seen in reversed(older):
        text = _json(_look(seen, now))
        room -= len(text) + 1
        if room < 0:
            break
        texts.append(text)
    return _json(frame)[:-1] + b',"looks":[' + b",".join(reversed(texts)) + b"]}"


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _shortened(look: dict[str, Any], room: int) -> dict[str, Any]:
    """Return a look that fits: all samples, and of their processes the largest."""
    most = MAX_PROCESSES
    while most and len(_json(look)) > room:
        most //= 2
        for sample in look["samples"]:
            del sample["processes"][most:]
    return look


def _frame(seen: Seen) -> dict[str, Any]:
    """Return the report without its looks."""
    report = NodeReport(
        problem=None if seen.problem is None else seen.problem[:MAX_PROBLEM],
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
                for gpu in seen.gpus[:MAX_DEVICES]
            ),
        ),
        allocations=None if seen.pods is None else _allocations(seen, seen.pods),
    )
    return report.model_dump(mode="json", exclude_none=True, exclude={"looks"})


def _look(seen: Seen, now: float) -> dict[str, Any]:
    look = LookReport(
        age_seconds=round(min(MAX_AGE_SECONDS, max(0.0, now - seen.at)), 3),
        samples=_those_that_fit(SampleReport, (_sample(sample) for sample in seen.samples)),
    )
    return look.model_dump(mode="json", exclude_none=True)


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


def _sample(sample: Sample) -> dict[str, Any]:
    largest = sorted(sample.processes, key=lambda one: one.memory_bytes, reverse=True)[:MAX_PROCESSES]
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
