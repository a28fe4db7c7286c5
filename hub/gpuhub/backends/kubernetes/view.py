"""The backend's picture of the cluster: four caches, joined into the questions that it asks.

Nodes, our own pods (servers and workers), other people's pods that hold GPUs, and events about workers;
with a namespace per person also which namespaces are ours. Labels of a pod mean something only there:
anybody may write them elsewhere. A question about pods or offers raises `BackendError` when the picture is
too old; events only explain, so an old one does no harm.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpuhub.backends.base import BackendError
from gpuhub.backends.kubernetes import seen
from gpuhub.backends.kubernetes.api import EVENTS, NAMESPACES, NODES, PODS, Api, Object
from gpuhub.backends.kubernetes.cache import Cache, Key
from gpuhub.backends.kubernetes.pools import (
    Counted,
    belongs,
    count,
    found_pools,
    labels_of_interest,
    resources_of_interest,
)
from gpuhub.backends.kubernetes.seen import ForeignPod, Happening, Node, ServerPod, WorkerPod
from gpuhub.backends.kubernetes.settings import KubernetesPool, KubernetesSettings
from gpuspawner.walls import HUB_LABEL

LOST_SECONDS = 10.0
"""A picture that was not in touch for longer decides nothing."""
HOLDERS = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


class ClusterView:
    """What is known of the cluster now."""

    def __init__(
        self,
        api: Api,
        settings: KubernetesSettings,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        on_worker_gone: Callable[[WorkerPod], None],
    ) -> None:
        self._settings = settings
        self._on_worker_gone = on_worker_gone
        labels, resources = labels_of_interest(settings.pools), resources_of_interest(settings.pools)
        users = settings.users_namespace
        self._places: Cache[bool] | None = None
        if users is None:
            self._places = Cache(
                api,
                NAMESPACES,
                labels=f"{HUB_LABEL}={settings.namespace}",
                keep=lambda _found: True,
                clock=clock,
                random=chance,
            )
        self._nodes: Cache[Node] = Cache(
            api,
            NODES,
            keep=lambda found: seen.node(found, labels=labels, resources=resources),
            clock=clock,
            random=chance,
        )
        self._own: Cache[ServerPod | WorkerPod] = Cache(
            api,
            PODS,
            namespace=users,
            labels=seen.OWN_PODS,
            keep=seen.own_pod,
            on_gone=self._own_gone,
            clock=clock,
            random=chance,
        )
        self._foreign: Cache[ForeignPod] = Cache(
            api,
            PODS,
            fields=HOLDERS,
            keep=lambda found: seen.foreign_pod(found, resources=resources),
            clock=clock,
            random=chance,
        )
        self._events: Cache[Happening] = Cache(
            api,
            EVENTS,
            namespace=users,
            fields="involvedObject.kind=Pod",
            keep=seen.happening,
            clock=clock,
            random=chance,
        )

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            for cache in (self._nodes, self._own, self._foreign, self._events):
                group.create_task(cache.run())
            if self._places is not None:
                group.create_task(self._places.run())

    async def wait(self) -> None:
        """Wait until everything that decides has been listed once."""
        await self._nodes.wait()
        await self._own.wait()
        await self._foreign.wait()
        if self._places is not None:
            await self._places.wait()

    def check_own(self) -> None:
        """Raise `BackendError` where servers and workers cannot be seen."""
        self._check(self._own, "servers and workers")
        if self._places is not None:
            self._check(self._places, "namespaces")

    def _is_ours(self, namespace: str) -> bool:
        if self._places is None:
            return namespace == self._settings.users_namespace
        return ("", namespace) in self._places.items

    def _check(self, cache: Cache[Any], what: str) -> None:
        age = cache.age_seconds()
        if age > LOST_SECONDS:
            told = "were never listed" if math.isinf(age) else f"were last heard of {age:.0f} s ago"
            raise BackendError(f"the cluster's {what} {told}")

    # --- our own pods

    def workers(self) -> Iterator[WorkerPod]:
        return (
            pod
            for pod in self._own.items.values()
            if isinstance(pod, WorkerPod) and self._is_ours(pod.namespace)
        )

    def worker(self, lease_id: str) -> WorkerPod | None:
        return next((pod for pod in self.workers() if pod.lease == lease_id), None)

    def _servers(self, user: str, server: str) -> list[ServerPod]:
        return [
            pod
            for pod in self._own.items.values()
            if isinstance(pod, ServerPod)
            and (pod.user, pod.server) == (user, server)
            and self._is_ours(pod.namespace)
        ]

    def server(self, user: str, server: str) -> ServerPod | None:
        """Return the pod of a server that runs; of two the newer one."""
        running = [pod for pod in self._servers(user, server) if pod.running]
        return max(running, key=lambda pod: pod.created, default=None)

    def server_exists(self, user: str, server: str) -> bool:
        return any(pod.exists for pod in self._servers(user, server))

    def put(self, pod: Object) -> None:
        """Take the server's answer to a write of ours."""
        self._own.put(pod)

    def drop(self, pod: WorkerPod) -> None:
        """Take out a pod that we have just removed, so that nobody sees it again."""
        self._own.drop((pod.namespace, pod.name))

    def _own_gone(self, _key: Key, pod: ServerPod | WorkerPod) -> None:
        if isinstance(pod, WorkerPod) and self._is_ours(pod.namespace):
            self._on_worker_gone(pod)

    def ahead(self, pod: WorkerPod) -> int | None:
        """Return how many of our workers came before one into its queue; None: it is in none."""
        if not pod.queue:
            return None
        own = (pod.created, pod.name)
        return sum(
            other.gated and other.queue == pod.queue and (other.created, other.name) < own
            for other in self.workers()
        )

    # --- machines

    def count(self) -> list[Counted]:
        """Return what each pool offers now. Raises `BackendError`."""
        self._check(self._nodes, "nodes")
        self._check(self._foreign, "pods")
        self.check_own()
        nodes = list(self._nodes.items.values())
        pools = self._settings.pools or found_pools(nodes)
        others = self._foreign.items.values()
        foreign = [pod for pod in others if not (pod.worker and self._is_ours(pod.namespace))]
        return count(pools, nodes, list(self.workers()), foreign)

    def has_pool(self, name: str, pool: KubernetesPool) -> bool | None:
        """Whether a machine is of a pool's kind, however full it is; None: it cannot be told."""
        node = self._nodes.items.get(("", name))
        return None if node is None or self._nodes.age_seconds() > LOST_SECONDS else belongs(node, pool)

    def node_answers(self, name: str) -> bool | None:
        """Whether a machine is there and its kubelet reports; None: it cannot be told."""
        if self._nodes.age_seconds() > LOST_SECONDS:
            return None
        node = self._nodes.items.get(("", name))
        return node is not None and node.ready

    # --- what happens

    def events(self, pod: WorkerPod) -> Sequence[Happening]:
        """Return what was said about a pod, oldest first."""
        return sorted(
            (
                event
                for event in self._events.items.values()
                if event.pod == pod.name and event.namespace == pod.namespace
            ),
            key=lambda event: event.at,
        )
