"""A played cluster for GpuKubeSpawner."""

from __future__ import annotations

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
