"""A session on the test's own loop, with fakes at every port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gpulease.models import Link
from gpulease.session import KernelStatus
from gpusession.kernel import Kernel
from gpusession.kernels.ports import KernelCommand
from gpusession.leases import KeyPair
from gpusession.session import Parts, Session
from tests.unit.session.fakes import (
    BrokerByHand,
    Faults,
    Process,
    RelayedKernel,
    Snapshots,
    SomewhereToRun,
    WorkerAtHand,
    counting_ids,
    make_key,
    now,
)


class Desk:
    """One session, its broker, its places, its disk."""

    def __init__(self, folder: Path, broker: BrokerByHand) -> None:
        self.broker = broker
        self.disk = Snapshots(folder)
        self.here = SomewhereToRun("server")
        self.faults = Faults()
        self.workers: list[WorkerAtHand] = []
        self.connect_fails = 0
        self.notebooks: dict[str, str] = {}
        self.session = Session(
            Parts(
                server="",
                user="ann",
                broker=broker,
                store=self.disk,
                server_place=self.here,
                connect=self._connect,
                make_key=make_key,
                notebook_of=self._notebook_of,
                now=now,
                make_id=counting_ids(),
                fence_seconds=0.2,
                answer_seconds=0.3,
                cell_hint_seconds=0.05,
                cell_news_seconds=0.05,
                save_look_seconds=0.05,
            )
        )

    async def _connect(self, link: Link, key: KeyPair) -> WorkerAtHand:
        if self.connect_fails:
            self.connect_fails -= 1
            raise OSError("refused")
        self.workers.append(WorkerAtHand())
        return self.workers[-1]

    async def _notebook_of(self, kernel_id: str) -> str | None:
        return self.notebooks.get(kernel_id)

    async def open(
        self, kernel_id: str = "k1", *, language: str = "python", **names: Any
    ) -> tuple[Kernel, RelayedKernel]:
        """Start a kernel with some variables, as the provisioner would."""
        self.notebooks.setdefault(kernel_id, f"{kernel_id}.ipynb")
        command = KernelCommand(kernel_id, ("python",), {}, "/", b"key", language)
        process = await self.session.place_for(kernel_id).start_kernel(command)
        process.names.update(names)
        endpoint = RelayedKernel(kernel_id, self.disk, self.faults, process)
        await self.session.launched(endpoint, command, "start")
        return self.session.kernel(kernel_id), endpoint

    async def settled(self, kernel_id: str = "k1") -> KernelStatus:
        kernel = self.session.kernel(kernel_id)
        await asyncio.wait_for(kernel.settled(), 10)
        await until(lambda: not kernel.recovering and not kernel.moving, "the kernel to settle")
        return kernel.status()

    async def flip(self, placement: str, kernel_id: str = "k1", *, consent: bool = False) -> KernelStatus:
        await self.session.ask(kernel_id, placement, consent=consent)
        return await self.settled(kernel_id)


def process_of(endpoint: RelayedKernel) -> Process:
    assert endpoint.running is not None
    return endpoint.running


async def until(check: Callable[[], Any], what: str, patience_seconds: float = 10.0) -> Any:
    deadline = asyncio.get_running_loop().time() + patience_seconds
    while asyncio.get_running_loop().time() < deadline:
        if answer := check():
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {patience_seconds} s for {what}")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, BrokerByHand())
    await made.session.begin()
    await until(lambda: made.session.keeper.state == "ok", "the broker")
    yield made
    made.faults.resume()
    await made.session.finish()
