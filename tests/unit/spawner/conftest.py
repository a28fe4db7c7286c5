"""A played cluster for GpuKubeSpawner, and the end of what KubeSpawner leaves running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kubernetes_asyncio.config import kube_config
from kubespawner import clients

from gpuspawner.kube import GpuKubeSpawner
from tests.unit.spawner.played import PlayedCluster


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlayedCluster]:
    played = PlayedCluster()
    async with played.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        clients.load_config.cache_clear()
        yield played
        await GpuKubeSpawner._stop_all_reflectors()
        for client in list(clients._client_cache.values()):
            await client.api_client.close()
        clients._client_cache.clear()
        for task in asyncio.all_tasks():
            if "close_client_task" in repr(task.get_coro()):
                task.cancel()
