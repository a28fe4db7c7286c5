"""A Kubernetes backend over an API server in memory, with machines that play along."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gpuhub.backends.kubernetes.api import NODES, PODS, Api
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from gpuhub.backends.kubernetes.settings import KubernetesSettings
from tests.unit.backends.machines import StandInKubelet, StandInScheduler, node, server_pod
from tests.unit.backends.memorycluster import ClusterInMemory

USERS = ("ann", "bob")


def settings(**changes: Any) -> KubernetesSettings:
    return KubernetesSettings.model_validate(
        {
            "namespace": "gpuhub",
            "users_namespace": "users",
            "pools": [{"name": "h100", "title": "NVIDIA H100", "memory_bytes": 80 * 10**9}],
            **changes,
        }
    )


@contextlib.asynccontextmanager
async def listening(backend: KubernetesBackend) -> AsyncIterator[KubernetesBackend]:
    """A backend that listens to its cluster."""
    task = asyncio.create_task(backend.run())
    try:
        assert await backend.listen(seconds=20), "the cluster was not listed in time"
        yield backend
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def furnish(api: Api, *, namespace: str = "users", gpus: int = 2) -> None:
    """One machine, and a server for each of `USERS`."""
    await api.create(NODES, None, node("node1", gpus))
    for user in USERS:
        pod = server_pod(user, namespace=namespace)
        pod["spec"]["nodeName"] = "node1"
        await api.create(PODS, namespace, pod)


@contextlib.asynccontextmanager
async def running_kubernetes_backend(**changes: Any) -> AsyncIterator[KubernetesBackend]:
    """The backend, a machine with two GPUs, and servers of ann and bob."""
    cluster = ClusterInMemory()
    await furnish(cluster)
    async with (
        StandInKubelet(cluster, "node1").running(),
        StandInScheduler(cluster).running(),
        listening(KubernetesBackend(cluster, settings(**changes))) as backend,
    ):
        yield backend
