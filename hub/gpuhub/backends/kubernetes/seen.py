"""What is kept of nodes, pods and events: a few fields each, read with care from what the API says.

Nothing here fails on a field that is missing or of another type than expected: other people's objects
come by too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpuhub.backends.kubernetes.api import Object
from gpuspawner.objects import mapping, mappings, text_of

PART_OF, COMPONENT = "app.kubernetes.io/part-of", "component"
LEASE, SERVER = "gpuhub.io/lease", "gpuhub.io/server"
POOL = "gpuhub.io/pool"
QUEUE = "kueue.x-k8s.io/queue-name"
SERVER_COMPONENT, WORKER_COMPONENT = "singleuser-server", "gpuhub-worker"
USERNAME, SERVERNAME = "hub.jupyter.org/username", "hub.jupyter.org/servername"
OWN_PODS = f"{PART_OF}=gpuhub,{COMPONENT} in ({SERVER_COMPONENT},{WORKER_COMPONENT})"
WORKER_CONTAINER = "worker"
PRODUCT, MEMORY, SIMULATED = "nvidia.com/gpu.product", "nvidia.com/gpu.memory", "gpuhub.io/simulated"
FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    name: str
    ready: bool
    """Its kubelet reports that it is."""
    cordoned: bool
    labels: Mapping[str, str]
    """Those that somebody asks for."""
    taints: tuple[Taint, ...]
    allocatable: Mapping[str, int]
    """Of the resources that somebody asks for: healthy devices."""


@dataclass(frozen=True)
class Condition:
    true: bool
    reason: str
    message: str


@dataclass(frozen=True)
class ServerPod:
    """A person's server."""

    namespace: str
    name: str
    uid: str
    user: str
    server: str
    slug: str
    created: str
    running: bool
    """Not finished, and not on its way out."""
    exists: bool
    """Not finished: it may still be saving."""


@dataclass(frozen=True)
class WorkerPod:
    """A lease's worker."""

    namespace: str
    name: str
    uid: str
    lease: str
    node: str
    holds: Mapping[str, int]
    """GPUs, by resource."""
    phase: str
    reason: str
    message: str
    conditions: Mapping[str, Condition]
    gated: bool
    """Somebody (Kueue) holds it back from the scheduler."""
    queue: str
    """Kueue's LocalQueue that it stands in."""
    created: str
    leaving_by: datetime | None
    """It was told to end, and this is when it will be made to."""
    ip: str
    waits_for: str = ""
    """Why the container does not run yet (``ImagePullBackOff``)."""
    ended_for: str = ""
    """Why the container has ended (``OOMKilled``)."""
    exit_code: int | None = None
    started: bool = False

    @property
    def finished(self) -> bool:
        return self.phase in FINISHED

    @property
    def ready(self) -> bool:
        found = self.conditions.get("Ready")
        return found is not None and found.true


@dataclass(frozen=True)
class ForeignPod:
    """A pod that holds GPUs, wherever it is; our own workers are among them."""

    namespace: str
    node: str
    holds: Mapping[str, int]
    worker: bool
    """It has a worker's labels. Whether it is one, its namespace says."""


@dataclass(frozen=True)
class Happening:
    """An event about a worker's pod."""

    namespace: str
    pod: str
    reason: str
    message: str
    at: str


def node(found: Object, *, labels: Collection[str], resources: Collection[str]) -> Node:
    """Read a node. ``labels`` and ``resources`` are those to keep."""
    metadata, spec, status = mapping(found, "metadata"), mapping(found, "spec"), mapping(found, "status")
    said = mapping(metadata, "labels")
    offered = mapping(status, "allocatable")
    ready = _conditions(status).get("Ready")
    return Node(
        name=text_of(metadata, "name"),
        ready=ready is not None and ready.true,
        cordoned=spec.get("unschedulable") is True,
        labels={name: str(said[name]) for name in labels if name in said},
        taints=tuple(
            Taint(text_of(taint, "key"), text_of(taint, "value"), text_of(taint, "effect"))
            for taint in mappings(spec, "taints")
        ),
        allocatable={name: _count(offered[name]) for name in resources if name in offered},
    )


def own_pod(found: Object) -> ServerPod | WorkerPod | None:
    """Read a server's or a worker's pod; None for what is neither."""
    metadata, status = mapping(found, "metadata"), mapping(found, "status")
    labels, notes = mapping(metadata, "labels"), mapping(metadata, "annotations")
    phase = text_of(status, "phase")
    leaving = bool(metadata.get("deletionTimestamp"))
    if labels.get(COMPONENT) == SERVER_COMPONENT and USERNAME in notes:
        return ServerPod(
            namespace=text_of(metadata, "namespace"),
            name=text_of(metadata, "name"),
            uid=text_of(metadata, "uid"),
            user=text_of(notes, USERNAME),
            server=text_of(notes, SERVERNAME),
            slug=text_of(labels, SERVER),
            created=text_of(metadata, "creationTimestamp"),
            running=phase not in FINISHED and not leaving,
            exists=phase not in FINISHED,
        )
    if labels.get(COMPONENT) != WORKER_COMPONENT or not text_of(labels, LEASE):
        return None
    spec = mapping(found, "spec")
    container = next(
        (one for one in mappings(status, "containerStatuses") if one.get("name") == WORKER_CONTAINER), {}
    )
    state = mapping(container, "state")
    ended = mapping(state, "terminated")
    code = ended.get("exitCode")
    return WorkerPod(
        namespace=text_of(metadata, "namespace"),
        name=text_of(metadata, "name"),
        uid=text_of(metadata, "uid"),
        lease=text_of(labels, LEASE),
        node=text_of(spec, "nodeName"),
        holds=held(spec, None),
        phase=phase,
        reason=text_of(status, "reason"),
        message=text_of(status, "message"),
        conditions=_conditions(status),
        gated=bool(mappings(spec, "schedulingGates")),
        queue=text_of(labels, QUEUE),
        created=text_of(metadata, "creationTimestamp"),
        leaving_by=_moment(text_of(metadata, "deletionTimestamp")),
        ip=text_of(status, "podIP"),
        waits_for=text_of(mapping(state, "waiting"), "reason"),
        ended_for=text_of(ended, "reason"),
        exit_code=code if isinstance(code, int) else None,
        started="running" in state,
    )


def foreign_pod(found: Object, *, resources: Collection[str]) -> ForeignPod | None:
    """Read any pod; None where it holds none of ``resources``."""
    metadata, spec = mapping(found, "metadata"), mapping(found, "spec")
    place = text_of(spec, "nodeName")
    holds = held(spec, resources)
    if not holds or not place or text_of(mapping(found, "status"), "phase") in FINISHED:
        return None
    labels = mapping(metadata, "labels")
    worker = labels.get(COMPONENT) == WORKER_COMPONENT and LEASE in labels
    return ForeignPod(text_of(metadata, "namespace"), place, holds, worker)


def happening(found: Object) -> Happening | None:
    """Read an event about a worker's pod."""
    about = mapping(found, "involvedObject")
    name = text_of(about, "name")
    if about.get("kind") != "Pod" or not name.startswith("gpu-"):
        return None
    series = mapping(found, "series")
    at = (
        text_of(series, "lastObservedTime")
        or text_of(found, "lastTimestamp")
        or text_of(found, "eventTime")
        or text_of(mapping(found, "metadata"), "creationTimestamp")
    )
    return Happening(
        text_of(about, "namespace"), name, text_of(found, "reason"), text_of(found, "message")[:1000], at
    )


def held(spec: Mapping[str, Any], resources: Collection[str] | None) -> dict[str, int]:
    """Return the most that a pod needs at once of ``resources`` (None: of all extended ones).

    Containers together, with init containers that go on (sidecars); or a single init container, if that
    is more.
    """
    steady: dict[str, int] = {}
    most: dict[str, int] = {}
    for container in mappings(spec, "initContainers"):
        asked = _asked(container, resources)
        if container.get("restartPolicy") == "Always":
            for name, count in asked.items():
                steady[name] = steady.get(name, 0) + count
        else:
            for name, count in asked.items():
                most[name] = max(most.get(name, 0), steady.get(name, 0) + count)
    for container in mappings(spec, "containers"):
        for name, count in _asked(container, resources).items():
            steady[name] = steady.get(name, 0) + count
    return {
        name: count
        for name in steady.keys() | most.keys()
        if (count := max(steady.get(name, 0), most.get(name, 0))) > 0
    }


def _asked(container: Mapping[str, Any], resources: Collection[str] | None) -> dict[str, int]:
    wanted = mapping(container, "resources")
    found = {**mapping(wanted, "limits"), **mapping(wanted, "requests")}
    return {
        name: _count(amount)
        for name, amount in found.items()
        if (name in resources if resources is not None else "/" in name)
    }


def _conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    return {
        text_of(one, "type"): Condition(
            one.get("status") == "True", text_of(one, "reason"), text_of(one, "message")[:1000]
        )
        for one in mappings(status, "conditions")
    }


def _count(amount: object) -> int:
    """Extended resources are whole numbers; what else somebody writes there counts as nothing."""
    try:
        text = str(amount)
        return int(float(text[:-1]) * 1000) if text.endswith("k") else int(text)
    except ValueError:
        return 0


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
