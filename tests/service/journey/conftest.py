"""One gpuhub for all journeys of a module: real hub, proxy, broker, servers, workers; simulated GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningHub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    folder: Path = tmp_path_factory.mktemp("hub")
    with RunningHub(folder, gpus="sim:2") as running:
        yield running
