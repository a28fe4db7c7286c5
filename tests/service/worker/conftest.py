from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gpusession.worker.link import WorkerConnection
from tests.service.worker.worker_process import RunningWorker, running_worker


@pytest.fixture
async def worker() -> AsyncIterator[RunningWorker]:
    async with running_worker() as running:
        yield running


@pytest.fixture
async def link(worker: RunningWorker) -> WorkerConnection:
    return await worker.connect()
