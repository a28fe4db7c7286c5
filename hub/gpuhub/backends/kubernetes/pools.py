"""Which pools there are and how many GPUs of each can be had: pure, from nodes and pods as they are seen.

``counted``: what works now on machines that take our workers, less what other people's pods hold there.
``scheduler`` and ``kueue``: as many as the operator said; pods wait for what is not there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpuhub.backends.base import PoolOffer
from gpuhub.backends.kubernetes.seen import MEMORY, PRODUCT, SIMULATED, ForeignPod, Node, WorkerPod
from gpuhub.backends.kubernetes.settings import KubernetesPool, Toleration

MIB = 1024**2
DEFAULT_RESOURCE = "nvidia.com/gpu"
REPELS = frozenset({"NoSchedule", "NoExecute"})
CORDON = "node.kubernetes.io/unschedulable"


@dataclass(frozen=True)
class Counted:
    """One pool's offer, and how its workers ask for it."""

    pool: KubernetesPool
    offer: PoolOffer


def labels_of_interest(pools: Iterable[KubernetesPool]) -> frozenset[str]:
    """Return the node labels that have to be kept."""
    return frozenset({PRODUCT, MEMORY, SIMULATED, *(name for pool in pools for name in pool.node_selector)})


def resources_of_interest(pools: Sequence[KubernetesPool]) -> frozenset[str]:
    """Return the resources that have to be counted."""
    return frozenset(pool.resource for pool in pools) or frozenset({DEFAULT_RESOURCE})


def tolerations(pool: KubernetesPool) -> list[Toleration]:
    """Return what the pool's workers tolerate: GPU machines are often tainted with the resource's name."""
    return [*pool.tolerations, Toleration(key=pool.resource, operator="Exists", effect="NoSchedule")]


def usable(node: Node, pool: KubernetesPool) -> bool:
    """Whether the scheduler would put a worker of the pool there, had it a free GPU."""
    own = tolerations(pool)
    return (
        node.ready
        and not node.cordoned
        and all(
            taint.effect not in REPELS
            or any(one.tolerates(taint.key, taint.value, taint.effect) for one in own)
            for taint in node.taints
        )
    )


def belongs(node: Node, pool: KubernetesPool) -> bool:
    return pool.node_selector.items() <= dict(node.labels).items() and pool.resource in node.allocatable


def found_pools(nodes: Collection[Node]) -> list[KubernetesPool]:
    """Return one pool for each product that labels name, or one for all where no machine has a label.

    Among machines with labels one without is not offered: nothing would keep another kind's pods off it.
    """
    found: dict[str, KubernetesPool] = {}
    offered = sorted(
        (node for node in nodes if DEFAULT_RESOURCE in node.allocatable), key=lambda node: node.name
    )
    for node in [node for node in offered if node.labels.get(PRODUCT)] or offered:
        product = node.labels.get(PRODUCT, "")
        title = product.replace("-", " ") or "GPU"
        name = re.sub(r"[^a-z0-9]+", "-", product.lower()).strip("-")[:63].strip("-") or "gpu"
        memory = node.labels.get(MEMORY, "")
        size = int(memory) * MIB if memory.isdecimal() else 0
        known = found.get(name)
        if known is not None:
            if known.title != title:
                continue  # two products whose names differ in signs only
            size = min(filter(None, (known.memory_bytes, size)), default=0)
        selector = {PRODUCT: product} if product else {}
        found[name] = KubernetesPool(name=name, title=title, memory_bytes=size, node_selector=selector)
    return list(found.values())


def count(
    pools: Sequence[KubernetesPool],
    nodes: Collection[Node],
    workers: Collection[WorkerPod],
    foreign: Collection[ForeignPod],
) -> list[Counted]:
    """Return what each pool offers now."""
    theirs = _held(foreign)
    ours = _held([worker for worker in workers if not worker.finished])
    return [Counted(pool, _offer(pool, nodes, ours, theirs)) for pool in pools]


def _offer(
    pool: KubernetesPool,
    nodes: Collection[Node],
    ours: Mapping[tuple[str, str], int],
    theirs: Mapping[tuple[str, str], int],
) -> PoolOffer:
    total = 0
    own = [node for node in nodes if belongs(node, pool)]
    for node in own:
        mine = ours.get((node.name, pool.resource), 0)
        if usable(node, pool):
            works = node.allocatable[pool.resource]
            total += max(0, min(works, max(mine, works - theirs.get((node.name, pool.resource), 0))))
        else:
            # What a worker holds on a cordoned machine is held, not missing: it must not count
            # against the other machines.
            total += mine
    simulated = pool.simulated or any(node.labels.get(SIMULATED) == "true" for node in own)
    title = pool.title or pool.name
    if simulated and "simulated" not in title.lower():
        title = f"{title} (simulated)"
    return PoolOffer(
        name=pool.name,
        title=title,
        memory_bytes=pool.memory_bytes,
        total=total if pool.total is None else pool.total,
        simulated=simulated,
    )


def _held(pods: Iterable[WorkerPod | ForeignPod]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for pod in pods:
        for resource, number in pod.holds.items():
            if pod.node:
                found[pod.node, resource] = found.get((pod.node, resource), 0) + number
    return found
