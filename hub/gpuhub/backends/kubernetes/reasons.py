"""Why a worker's pod waits, does not start, or has ended, in words for its owner; a table, and nothing else.

Promises: nobody ever reads a raw text of the scheduler, the kubelet or an admission rule; those go to the
log. What is not in the table gets an honest general sentence. Whether a pod *waits* (for room: nothing
failed, no time limit runs) is told apart from what holds a start up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpuhub.backends.kubernetes.api import ApiError
from gpuhub.backends.kubernetes.seen import Condition, Happening, WorkerPod

NODE_LOST = "The machine with the GPU is lost."
REMOVED = "The worker was removed from the cluster from outside."
ENDED = "The worker has ended."
PREEMPTED = "Something with a higher priority in the cluster needed the GPU."


@dataclass(frozen=True)
class Start:
    """Where the start of a pod stands. An empty message: as it should."""

    waits: bool
    """For room. False: it has its place, and the time for a start runs."""
    message: str


GPU_SHORT = r"Insufficient [a-z0-9.-]+/"
UNSCHEDULABLE: Sequence[tuple[str, str]] = (
    # The first that fits counts: what keeps the pod from the machines with GPUs stands before what is
    # said of all the other machines.
    (r"persistentvolumeclaim .* not found", "Your home folder's storage does not exist (any more)."),
    (
        r"unbound immediate PersistentVolumeClaims|waiting for first consumer"
        r"|didn't find available persistent volumes",
        "It waits for your home folder's storage.",
    ),
    (
        r"volume node affinity conflict|exceed max volume count",
        "Your home folder cannot be reached from a machine with a free GPU; it waits for one that can.",
    ),
    (GPU_SHORT, "It waits for a free GPU in the cluster."),
    (
        r"Insufficient (cpu|memory|ephemeral-storage)|Too many pods",
        "It waits for a machine with a GPU that has enough room besides.",
    ),
    (
        r"node\(s\) (didn't match|were unschedulable|had untolerated taint|had taint)|no nodes available",
        "No machine with such a GPU can be used at the moment; it starts when one can.",
    ),
)
WAITS = "It waits for its place in the cluster."
QUEUED = "It waits for its turn in the cluster's queue"
GROWS = "A machine with a GPU is being started for it; that takes some minutes."
PINNED = "It waits for a free GPU on the machine where your server runs: your home folder is there."
PINNED_ROOM = "It waits for room on the machine where your server runs: your home folder is there."
ELSEWHERE = (
    "Your server runs on a machine without such a GPU, and your home folder can be used on one machine at a "
    "time. Stop your server and start it again, or ask your operator for machines with GPUs."
)

HELD_UP: dict[str, str] = {
    # containerStatuses[].state.waiting.reason
    "ErrImagePull": "The image of your environment cannot be fetched on the machine with the GPU.",
    "ImagePullBackOff": "The image of your environment cannot be fetched on the machine with the GPU.",
    "ErrImageNeverPull": "The image of your environment is not on the machine with the GPU.",
    "InvalidImageName": "The image of your environment has a name that cannot be used.",
    "RegistryUnavailable": "The registry with your environment's image does not answer.",
    "SignatureValidationFailed": "The image of your environment is not signed as the cluster demands.",
    "CreateContainerConfigError": "The worker cannot be set up on the machine with the GPU.",
    "CreateContainerError": "The worker cannot be set up on the machine with the GPU.",
    "RunContainerError": "The worker cannot be started in this environment.",
    "CrashLoopBackOff": "The worker cannot be started in this environment.",
    # events
    "Pulling": "The image of your environment is being fetched; the first time on a machine takes longest.",
    "FailedMount": "Your home folder cannot be reached from the machine with the GPU yet.",
    "FailedAttachVolume": "Your home folder cannot be reached from the machine with the GPU yet.",
    "FailedCreatePodSandBox": "The machine with the GPU cannot prepare the worker yet.",
    "FailedCreatePodContainer": "The machine with the GPU cannot prepare the worker yet.",
}

GONE: dict[str, str] = {
    # status.reason of the pod
    "Evicted": "The machine ran short of memory or disk space, and the worker was ended there.",
    "DeadlineExceeded": "The worker ran longer than the cluster allows.",
    "NodeLost": NODE_LOST,
    "NodeShutdown": "The machine with the GPU was shut down.",
    "Shutdown": "The machine with the GPU was shut down.",
    "Terminated": "The machine with the GPU was shut down.",
    "UnexpectedAdmissionError": "The GPU did not work on its machine.",
    "NodeAffinity": "The machine with the GPU does not take such workers any more.",
    "Preempting": PREEMPTED,
    "Preempted": PREEMPTED,
    # condition DisruptionTarget
    "PreemptionByScheduler": PREEMPTED,
    "PreemptionByKubeScheduler": PREEMPTED,
    "DeletionByTaintManager": NODE_LOST,
    "DeletionByPodGC": NODE_LOST,
    "EvictionByEvictionAPI": "The machine with the GPU is being emptied for maintenance.",
    "TerminationByKubelet": "The machine with the GPU had to end the worker: it shuts down, or ran short of "
    "memory or disk space.",
    # condition TerminationTarget (kueue)
    "WorkloadEvictedDueToPreempted": PREEMPTED,
    "WorkloadEvictedDueToPreemption": PREEMPTED,
    # containerStatuses[].state.terminated.reason
    "OOMKilled": "The worker used more main memory than it may, and was ended.",
    "ContainerCannotRun": "The worker cannot be started in this environment.",
    "StartError": "The worker cannot be started in this environment.",
    "ContainerStatusUnknown": NODE_LOST,
}

REFUSED: Sequence[tuple[int, str, str]] = (
    # status, what the message says, the sentence
    (403, r"exceeded quota.*(nvidia|amd|gpu)", "The cluster's limit of GPUs for this hub is used up."),
    (403, r"exceeded quota|failed quota|insufficient quota", "The cluster's limit for this hub is used up."),
    (403, r"violates PodSecurity", "The cluster's security rules refuse the worker."),
    (403, r"namespace .* being terminated", "The place for workers is being removed from the cluster."),
    (403, r"no PriorityClass", "The priority that workers have here does not exist in the cluster."),
    (
        403,
        r"(maximum|minimum) .* usage per",
        "The worker asks for more memory or CPU than the cluster allows.",
    ),
    (403, r"User .* cannot|is forbidden: User", "The GPU service lacks a right in the cluster."),
    (403, r"", "A rule of the cluster refuses the worker."),
    (400, r"admission webhook", "A rule of the cluster refuses the worker."),
    (401, r"", "The cluster does not know the GPU service (any more)."),
    (404, r"", "The place for workers does not exist in the cluster."),
    (409, r"being terminated|object is being deleted", "An earlier worker is still being removed."),
    (422, r"denied", "A rule of the cluster refuses the worker."),
    (422, r"", "The cluster cannot use what the worker is made from."),
    (429, r"", "The cluster is busy; it is tried again."),
    (
        500,
        r"admission webhook|failed calling webhook",
        "A part of the cluster that checks workers does not answer.",
    ),
)
AWAY = "The cluster does not answer at the moment; it is tried again."
REFUSED_SOMEHOW = "The cluster did not take the worker."


def start(
    pod: WorkerPod, events: Sequence[Happening] = (), *, pinned: bool = False, ahead: int | None = None
) -> Start:
    """Return where the start of a pod that is not ready stands. ``events``: about it, oldest first.

    ``ahead``: how many of our own stand before it in the cluster's queue; None: it is in none that we know.
    """
    if not pod.node:
        return Start(True, _waits(pod, events, pinned, ahead))
    if pod.waits_for in HELD_UP:
        return Start(False, HELD_UP[pod.waits_for])
    if not pod.started:
        for event in reversed(events):
            if event.reason in ("Pulled", "Created", "Started"):
                break
            if event.reason in HELD_UP:
                return Start(False, HELD_UP[event.reason])
    return Start(False, "")


def _waits(pod: WorkerPod, events: Sequence[Happening], pinned: bool, ahead: int | None) -> str:
    placed = pod.conditions.get("PodScheduled")
    if pod.gated or (placed is not None and not placed.true and placed.reason == "SchedulingGated"):
        return _queued(ahead)
    if placed is None or placed.true:
        return WAITS
    grows = next(
        (e.reason for e in reversed(events) if e.reason in ("TriggeredScaleUp", "NotTriggerScaleUp")), ""
    )
    if grows == "TriggeredScaleUp":
        return GROWS
    for pattern, sentence in UNSCHEDULABLE:
        if re.search(pattern, placed.message, re.IGNORECASE):
            if pinned and "Insufficient" in placed.message:
                return PINNED if re.search(GPU_SHORT, placed.message, re.IGNORECASE) else PINNED_ROOM
            return sentence
    return WAITS


def _queued(ahead: int | None) -> str:
    if ahead is None:
        return f"{QUEUED}."
    if ahead == 0:
        return f"{QUEUED}; no other of this hub is before it."
    return f"{QUEUED}; {ahead} of this hub {'is' if ahead == 1 else 'are'} before it."


def end(pod: WorkerPod) -> str:
    """Return why a pod has ended, or will be gone."""
    target = _target(pod)
    if pod.ended_for == "OOMKilled":
        return GONE["OOMKilled"]
    if target is not None and target.reason in GONE:
        return GONE[target.reason]
    for said in (pod.reason, pod.ended_for):
        if said in GONE:
            return GONE[said]
    if pod.reason.startswith("OutOf"):
        return "Somebody else took the GPU at the last moment."
    if pod.exit_code is None or pod.exit_code == 0:
        return ENDED
    if pod.exit_code in (126, 127):
        return "The worker could not be started in this environment."
    if pod.exit_code > 128:
        return f"The worker was ended by signal {pod.exit_code - 128}."
    return f"The worker ended with status {pod.exit_code}."


def disrupted(pod: WorkerPod) -> bool:
    """Whether the cluster itself takes the pod away."""
    return _target(pod) is not None or pod.reason in GONE


def _target(pod: WorkerPod) -> Condition | None:
    for name in ("DisruptionTarget", "TerminationTarget"):
        found = pod.conditions.get(name)
        if found is not None and found.true:
            return found
    return None


def refusal(error: ApiError) -> str:
    """Return why the API server did not take what was made."""
    if error.status == 0:
        return AWAY
    for status, pattern, sentence in REFUSED:
        if error.status == status and re.search(pattern, error.message, re.IGNORECASE | re.DOTALL):
            return sentence
    return AWAY if error.away else REFUSED_SOMEHOW
