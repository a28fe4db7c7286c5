"""GPUs of a cluster: a worker is a pod beside its owner's server, and the cluster remembers everything.

* Nothing is decided from a cache that has lost touch: `observe` and `offers` raise then.
* A start is three objects, in an order in which a crash between any two leaves nothing behind: Secret and
  NetworkPolicy belong to the server's pod until the worker's exists, and to that afterwards.
* A pod that has ended stays until `forget`. One that somebody removed is remembered as exited while this
  process lives; after a restart it is simply missing.
* What people read comes from `reasons`; what the cluster really said is in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from gpuhub.backends.base import (
    BackendError,
    DeviceOffer,
    Gpu,
    Phase,
    PoolOffer,
    StartRefused,
    WorkerOrder,
    WorkerSeen,
    offered,
)
from gpuhub.backends.kubernetes import reasons
from gpuhub.backends.kubernetes.api import NETWORK_POLICIES, PODS, SECRETS, Api, ApiError, Kind, Object
from gpuhub.backends.kubernetes.pools import tolerations
from gpuhub.backends.kubernetes.seen import LEASE, ServerPod, WorkerPod, own_pod
from gpuhub.backends.kubernetes.settings import KubernetesPool, KubernetesSettings
from gpuhub.backends.kubernetes.tokens import Reviewed, review_token
from gpuhub.backends.kubernetes.view import ClusterView
from gpuspawner import pods
from gpuspawner.names import worker_name
from gpuspawner.objects import mapping, text_of
from gpuspawner.pods import UnfitServer, WorkerWants

PREFIX = "gpu-"
"""Of the names of a lease's pod, Secret and policy."""
KEYS_REVISION = "gpuhub.io/keys-revision"
STUCK_AFTER = timedelta(seconds=30)
"""How long after its last moment a pod on a machine that does not answer is held for lost."""
NO_SERVER = "Your server does not run; start it, then ask again."

log = logging.getLogger(__name__)


Allocations = Callable[[str, str, str], Sequence[Gpu] | None]
"""(node, namespace, pod) -> the GPUs that the pod was given; None: not known (yet)."""


def nothing_known(_node: str, _namespace: str, _pod: str) -> None:
    """Where nobody reports which GPUs a pod was given."""
    return


class KubernetesBackend:
    """The backend port on a cluster. `run` must run beside it: it listens to the cluster."""

    def __init__(
        self,
        api: Api,
        settings: KubernetesSettings,
        *,
        allocations: Allocations = nothing_known,
        leads: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._api, self._settings, self._allocations = api, settings, allocations
        self._leads, self._now = leads, now
        self._view = ClusterView(api, settings, clock=clock, chance=chance, on_worker_gone=self._gone)
        self._vanished: dict[str, WorkerSeen] = {}
        self._told: dict[str, str] = {}
        """By lease: the uid of the pod that we have told to end."""
        self._places: dict[str, str] = {}
        """By lease: the namespace of what was made for it."""
        self._pools: dict[str, KubernetesPool] = {pool.name: pool for pool in settings.pools}

    async def run(self) -> None:
        """Listen to the cluster until cancelled."""
        await self._view.run()

    async def listen(self, *, seconds: float) -> bool:
        """Wait until everything has been listed once. Returns whether it was in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._view.wait()
        except TimeoutError:
            return False
        return True

    async def review_token(self, token: str, audience: str) -> Reviewed | None:
        """Return whose token it is; None where it is not valid for ``audience``. Raises `BackendError`."""
        return await review_token(self._api, token, audience)

    # --- the port

    async def offers(self) -> tuple[PoolOffer, ...]:
        counted = self._view.count()
        self._pools.update({one.pool.name: one.pool for one in counted})
        return tuple(one.offer for one in counted)

    async def start(self, order: WorkerOrder) -> None:
        if order.lease_id in self._vanished:
            return
        name = worker_name(PREFIX, order.lease_id)
        self._view.check_own()
        server, worker = self._view.server(order.user, order.server), self._view.worker(order.lease_id)
        beside = worker or server
        namespace = self._places.get(order.lease_id) or (None if beside is None else beside.namespace)
        if namespace is None:
            raise StartRefused(NO_SERVER)
        self._may_write()
        try:
            found = await self._find(PODS, namespace, name)
            if found is not None:
                await self._tell_key(order, namespace, name, found)
                return
            if server is None:
                raise StartRefused(NO_SERVER)
            await self._make(order, server, name)
        except UnfitServer as error:
            raise StartRefused(str(error)) from error
        except ApiError as error:
            log.warning("worker %s was not taken by the cluster: %s", name, error)
            raise StartRefused(reasons.refusal(error)) from error

    async def stop(self, lease_id: str, *, grace_seconds: float) -> None:
        self._view.check_own()
        pod = self._view.worker(lease_id)
        if pod is None or pod.finished:
            return
        self._told[lease_id] = pod.uid
        if pod.leaving_by is not None and not self._lost(pod):
            return
        seconds = 0 if self._lost(pod) else int(grace_seconds) + pods.MARGIN_SECONDS
        self._may_write()
        await self._delete(PODS, pod.namespace, pod.name, uid=pod.uid, grace_seconds=seconds)

    async def observe(self) -> Mapping[str, WorkerSeen]:
        self._view.check_own()
        seen = {pod.lease: self._seen(pod) for pod in self._view.workers()}
        return {**self._vanished, **seen}

    async def forget(self, lease_id: str) -> None:
        pod = self._view.worker(lease_id)
        self._view.check_own()
        if pod is not None and self._seen(pod).phase is not Phase.EXITED:
            return
        name = worker_name(PREFIX, lease_id)
        namespace = pod.namespace if pod is not None else self._places.get(lease_id)
        namespace = namespace or self._settings.users_namespace
        self._may_write()
        if namespace is not None:
            if pod is not None:
                await self._delete(PODS, namespace, name, uid=pod.uid, grace_seconds=0)
            for kind in (SECRETS, NETWORK_POLICIES):
                await self._delete(kind, namespace, name)
        if pod is not None:
            self._view.drop(pod)
        for memory in (self._vanished, self._told, self._places):
            memory.pop(lease_id, None)

    async def server_running(self, user: str, server: str) -> bool | None:
        try:
            self._view.check_own()
        except BackendError:
            return None
        return self._view.server_exists(user, server)

    async def close(self) -> None:
        await self._api.close()

    # --- starting

    async def _make(self, order: WorkerOrder, server: ServerPod, name: str) -> None:
        pool = self._pools.get(order.pool)
        if pool is None:
            raise StartRefused("Where GPUs of this kind are cannot be told at the moment.")
        if not order.host_key:
            raise BackendError(f"{name}: its host key is gone, so it cannot be made again")
        server_pod = await self._api.get(PODS, server.namespace, server.name)
        if own_pod(server_pod) != server and not _same(server_pod, server):
            raise StartRefused(NO_SERVER)
        wants = self._wants(order, name, pool)
        place = text_of(mapping(server_pod, "spec"), "nodeName")
        if wants.pinned and self._view.has_pool(place, pool) is False:
            raise StartRefused(reasons.ELSEWHERE)
        pod = pods.worker_pod(server_pod, wants)
        pod["metadata"]["annotations"][KEYS_REVISION] = _revision(order.public_key)
        policy = pods.worker_policy(server_pod, wants)
        secret = pods.worker_secret(server_pod, wants, host_key=order.host_key, public_key=order.public_key)
        namespace = server.namespace
        self._places[order.lease_id] = namespace
        owned = {"metadata": {"ownerReferences": pods.owner(server_pod)}}
        # What an earlier try has left may belong to a server pod that is gone by now.
        if await self._create(SECRETS, namespace, secret) is None:
            await self._patch(SECRETS, namespace, name, {**owned, "data": secret["data"]})
        if await self._create(NETWORK_POLICIES, namespace, policy) is None:
            await self._patch(NETWORK_POLICIES, namespace, name, {**owned, "spec": policy["spec"]})
        made = await self._create(PODS, namespace, pod) or await self._api.get(PODS, namespace, name)
        self._view.put(made)
        await self._hand_over(namespace, name, made)

    def _wants(self, order: WorkerOrder, name: str, pool: KubernetesPool) -> WorkerWants:
        settings = self._settings
        return WorkerWants(
            name=name,
            lease_id=order.lease_id,
            user=order.user,
            server=order.server,
            pool=pool.name,
            resource=pool.resource,
            gpus=order.gpus,
            grace_seconds=order.grace_seconds,
            fence_seconds=settings.fence_seconds,
            requests=pool.requests or settings.requests,
            limits=pool.limits or settings.limits,
            node_selector=pool.node_selector,
            tolerations=[one.manifest() for one in tolerations(pool)],
            environment=settings.environment,
            priority_class=settings.priority_class,
            runtime_class=pool.runtime_class,
            queue=pool.queue,
            pinned=settings.home_access_mode == "ReadWriteOnce",
        )

    async def _hand_over(self, namespace: str, name: str, pod: Object) -> None:
        """Secret and policy go with the worker from now on, no longer with the server."""
        body = {"metadata": {"ownerReferences": pods.owner(pod)}}
        for kind in (SECRETS, NETWORK_POLICIES):
            await self._patch(kind, namespace, name, body)

    async def _tell_key(self, order: WorkerOrder, namespace: str, name: str, pod: Object) -> None:
        """The worker exists: its server may have a new key since, and a crash may have left a step undone."""
        self._check_ours(pod, order.lease_id)
        self._places[order.lease_id] = namespace
        self._view.put(pod)
        seen = own_pod(pod)
        if not isinstance(seen, WorkerPod) or seen.finished or seen.leaving_by is not None:
            return
        await self._hand_over(namespace, name, pod)
        revision = _revision(order.public_key)
        notes = (pod.get("metadata") or {}).get("annotations") or {}
        if notes.get(KEYS_REVISION) == revision:
            return
        await self._patch(SECRETS, namespace, name, {"data": pods.key_data(order.public_key)})
        # A change of the pod makes the kubelet look at its Secret now, not within a minute.
        patched = await self._patch(
            PODS, namespace, name, {"metadata": {"annotations": {KEYS_REVISION: revision}}}
        )
        self._view.put(patched)

    async def _create(self, kind: Kind, namespace: str, body: Object) -> Object | None:
        """Create; None where our own is there already. Raises `ApiError`, `BackendError` for another's."""
        self._may_write()
        try:
            return await self._api.create(kind, namespace, body)
        except ApiError as error:
            if error.status != 409 or error.reason != "AlreadyExists":
                raise
        name, lease_id = body["metadata"]["name"], body["metadata"]["labels"][LEASE]
        self._check_ours(await self._api.get(kind, namespace, name), lease_id)
        return None

    async def _patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        self._may_write()
        return await self._api.patch(kind, namespace, name, body)

    async def _find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return await self._api.get(kind, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        try:
            await self._api.delete(kind, namespace, name, uid=uid, grace_seconds=grace_seconds)
        except ApiError as error:
            gone = error.status == 404 or (error.status == 409 and bool(uid))
            if not gone:
                raise

    def _check_ours(self, found: Object, lease_id: str) -> None:
        metadata = found.get("metadata") or {}
        if (metadata.get("labels") or {}).get(LEASE) != lease_id:
            raise BackendError(f"{found.get('kind')} {metadata.get('name')} is not of lease {lease_id}")
        if metadata.get("deletionTimestamp") and found.get("kind") != "Pod":
            raise BackendError(f"{found.get('kind')} {metadata.get('name')} is just being removed")

    def _may_write(self) -> None:
        if not self._leads():
            raise BackendError("another broker leads")

    # --- seeing

    def _seen(self, pod: WorkerPod) -> WorkerSeen:
        devices = self._devices(pod)
        ids = tuple(device.id for device in devices)
        if pod.finished:
            return WorkerSeen(pod.lease, Phase.EXITED, None, ids, reasons.end(pod), devices=devices)
        if self._lost(pod):
            return WorkerSeen(pod.lease, Phase.EXITED, None, ids, reasons.NODE_LOST, devices=devices)
        if pod.leaving_by is not None:
            message = reasons.end(pod) if reasons.disrupted(pod) else ""
            return WorkerSeen(pod.lease, Phase.STOPPING, None, ids, message, devices=devices)
        if pod.ready and pod.ip:
            return WorkerSeen(pod.lease, Phase.READY, _address(pod.ip), ids, devices=devices)
        pinned = self._settings.home_access_mode == "ReadWriteOnce"
        start = reasons.start(pod, self._view.events(pod), pinned=pinned, ahead=self._view.ahead(pod))
        return WorkerSeen(
            pod.lease, Phase.STARTING, None, ids, start.message, waiting=start.waits, devices=devices
        )

    def _devices(self, pod: WorkerPod) -> tuple[DeviceOffer, ...]:
        found = self._allocations(pod.node, pod.namespace, pod.name) if pod.node else None
        return tuple(offered(gpu) for gpu in found or ())

    def _lost(self, pod: WorkerPod) -> bool:
        """Whether its time is over and its machine does not answer: nobody will say that it has ended."""
        if pod.leaving_by is None or not pod.node or self._now() < pod.leaving_by + STUCK_AFTER:
            return False
        return self._view.node_answers(pod.node) is False

    def _gone(self, pod: WorkerPod) -> None:
        """A worker's pod is there no more."""
        if self._told.get(pod.lease) == pod.uid:
            message = reasons.ENDED
        elif pod.finished or reasons.disrupted(pod):
            message = reasons.end(pod)
        elif pod.node and self._view.node_answers(pod.node) is False:
            message = reasons.NODE_LOST
        else:
            message = reasons.REMOVED
        self._places[pod.lease] = pod.namespace
        self._vanished[pod.lease] = WorkerSeen(pod.lease, Phase.EXITED, message=message)


def _revision(public_key: str) -> str:
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def _address(ip: str) -> str:
    return f"tcp:[{ip}]:{pods.PORT}" if ":" in ip else f"tcp:{ip}:{pods.PORT}"


def _same(found: Object, server: ServerPod) -> bool:
    seen = own_pod(found)
    return isinstance(seen, ServerPod) and seen.uid == server.uid and seen.running
