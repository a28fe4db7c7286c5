"""What each pod uses of a GPU that several share (time slicing, MPS): from the use of its processes.

Pure. Promises: a share is called silent only when that is certain. Where the driver does not tell the use
of single processes, or a process cannot be told to be somebody's, a busy GPU gives no sample for any of
its shares, and so nobody is reclaimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuhub.telemetry.base import REPLICA_MARK, ProcessSample, Sample, whole
from gpuhub.telemetry.podresources import PodGpus


def shared_devices(pods: Sequence[PodGpus]) -> frozenset[str]:
    """Return the GPUs of which pods have shares."""
    return frozenset(whole(one) for pod in pods for one in pod.device_ids if REPLICA_MARK in one)


def samples_of_shares(
    samples: Sequence[Sample], pods: Sequence[PodGpus], uids: Mapping[tuple[str, str], str]
) -> list[Sample]:
    """Return one sample per share whose use is known. ``uids``: of pods, by (namespace, name)."""
    by_device = {sample.device_id: sample for sample in samples}
    found = []
    for pod in pods:
        uid = uids.get((pod.namespace, pod.pod))
        seen: set[str] = set()
        for share in pod.device_ids:
            sample = by_device.get(whole(share))
            if REPLICA_MARK not in share or sample is None:
                continue
            own = [process for process in sample.processes if uid is not None and process.pod_uid == uid]
            use = _use(sample, own, uid)
            if use is None:
                continue
            # Of several shares of one GPU in one pod the first shows its processes: they are there once.
            shown = () if sample.device_id in seen else tuple(own)
            seen.add(sample.device_id)
            found.append(
                replace(
                    sample,
                    device_id=share,
                    utilisation_percent=use,
                    memory_bytes=sum(process.memory_bytes for process in shown),
                    processes=shown,
                    power_watts=None,
                )
            )
    return found


def _use(sample: Sample, own: Sequence[ProcessSample], uid: str | None) -> float | None:
    """Return how busy one pod's processes kept a GPU; None where that cannot be told for certain."""
    if sample.utilisation_percent == 0:
        return 0.0
    if uid is None or any(process.utilisation_percent is None for process in sample.processes):
        return None
    busy = [process for process in sample.processes if process.utilisation_percent]
    if not busy or any(process.pod_uid is None for process in busy):
        return None  # whoever kept it busy has gone, or is nobody's that we know
    return min(100.0, sum(process.utilisation_percent or 0.0 for process in own))
