"""A played cluster for GpuKubeSpawner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.spawner import kube
from tests.unit.spawner.played import PlayedCluster


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlayedCluster]:
    played = PlayedCluster()
    async with played.serving(tmp_path) as kubeconfig, kube.spawning(kubeconfig, monkeypatch):
        yield played


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where the played server listens."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
