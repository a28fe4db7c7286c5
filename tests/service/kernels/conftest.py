"""A session as a server has it, with real kernels, a worker's place on this machine, and real clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session as JupyterSession

from gpulease.models import Link
from gpulease.session import KernelStatus
from gpusession.kernels import provisioner
from gpusession.kernels.environment import without_secrets
from gpusession.kernels.here import HereKernel, HerePlace
from gpusession.kernels.ports import LINK_LOST, KernelCommand
from gpusession.leases import KeyPair
from gpusession.session import Parts, Session
from gpusession.state.store import SnapshotStore
from tests.service.kernels.reader import Reader
from tests.unit.session.fakes import BrokerByHand, counting_ids, make_key, now


class FarKernel:
    """A process of this machine that can be lost sight of."""

    def __init__(self, kernel: HereKernel) -> None:
        self._kernel = kernel
        self.placement, self.channels, self.pid = kernel.placement, kernel.channels, kernel.pid
        self.signal, self.kill = kernel.signal, kernel.kill
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        kernel.exited.add_done_callback(lambda status: self.end(status.result()))

    def end(self, status: int) -> None:
        if not self.exited.done():
            self.exited.set_result(status)


class WorkerOnThisMachine:
    """A link whose worker is a place on this machine; `lose` cuts it and ends what runs there."""

    placement = "worker"

    def __init__(self, folder: Path) -> None:
        self._here = HerePlace(folder, placement="worker", environment=without_secrets)
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.kernels: list[FarKernel] = []

    @property
    def place(self) -> WorkerOnThisMachine:
        return self

    async def start_kernel(self, command: KernelCommand) -> FarKernel:
        self.kernels.append(FarKernel(await self._here.start_kernel(command)))
        return self.kernels[-1]

    async def lose(self) -> None:
        self.lost.set_result("The worker was lost.")
        for kernel in self.kernels:
            kernel.end(LINK_LOST)
            await kernel.kill()

    async def close(self) -> None:
        return


class Server:
    """One server's session in a thread of its own, attached to this process's provisioner."""

    def __init__(self, folder: Path, short: Path) -> None:
        self.folder, self.short = folder, short
        self.broker = BrokerByHand()
        self.store = SnapshotStore(folder / "snapshots")
        self.workers: list[WorkerOnThisMachine] = []
        self.managers: list[AsyncKernelManager] = []
        self.readers: list[Reader] = []
        self.session = Session(
            Parts(
                server="",
                user="ann",
                broker=self.broker,
                store=self.store,
                server_place=HerePlace(short),
                connect=self._connect,
                make_key=make_key,
                notebook_of=self._notebook_of,
                now=now,
                make_id=counting_ids(),
                fence_seconds=0.2,
            )
        )

    async def _connect(self, link: Link, key: KeyPair) -> WorkerOnThisMachine:
        self.workers.append(WorkerOnThisMachine(self.short))
        return self.workers[-1]

    async def _notebook_of(self, kernel_id: str) -> str | None:
        return f"{kernel_id}.ipynb"

    async def call(self, work: Any) -> Any:
        return await self.session.call(work)

    def manager(self, *, kernel_dirs: list[str] | None = None, **traits: Any) -> AsyncKernelManager:
        if kernel_dirs is not None:
            traits["kernel_spec_manager"] = KernelSpecManager(kernel_dirs=kernel_dirs)
        file = self.folder / f"{uuid.uuid4().hex}.json"
        self.managers.append(AsyncKernelManager(connection_file=str(file), **traits))
        return self.managers[-1]

    async def open(self, **traits: Any) -> tuple[AsyncKernelManager, Reader]:
        """Start a kernel through Jupyter's manager, and a client that reads everything."""
        manager = self.manager(**traits)
        await manager.start_kernel(cwd=str(self.folder))
        return manager, await self.reader(manager)

    async def reader(self, manager: AsyncKernelManager) -> Reader:
        # Each with a session (and so a name) of its own, as browsers' connections have.
        client: AsyncKernelClient = manager.client(session=JupyterSession(key=manager.session.key))
        client.start_channels()
        reader = Reader(client)
        self.readers.append(reader)
        await client.wait_for_ready(timeout=60)
        reader.begin()
        return reader

    async def status(self, manager: AsyncKernelManager) -> KernelStatus:
        return await self.call(self.session.kernel_status(manager.kernel_id))

    def relay(self, manager: AsyncKernelManager) -> Any:
        return self.session.kernels[manager.kernel_id].endpoint

    async def relay_call(self, manager: AsyncKernelManager, method: str, *arguments: Any) -> Any:
        return await self.call(getattr(self.relay(manager), method)(*arguments))

    async def flip(
        self, manager: AsyncKernelManager, placement: str, *, consent: bool = False, wait: bool = True
    ) -> KernelStatus:
        await self.call(self.session.ask(manager.kernel_id, placement, consent=consent))
        if not wait:
            return await self.status(manager)
        kernel = self.session.kernels[manager.kernel_id]
        await asyncio.wait_for(self.call(kernel.settled()), 60)
        return await self.status(manager)

    async def close(self) -> None:
        for reader in self.readers:
            await reader.end()
        for manager in self.managers:
            if manager.has_kernel:
                await manager.shutdown_kernel(now=True)
            else:
                await manager.cleanup_resources()
        await asyncio.to_thread(self.session.stop)


async def until(check: Callable[[], Any], what: str, patience_seconds: float = 30.0) -> Any:
    deadline = asyncio.get_running_loop().time() + patience_seconds
    while asyncio.get_running_loop().time() < deadline:
        if answer := check():
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {patience_seconds} s for {what}")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gk-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def server(tmp_path: Path, short: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path, short)
    made.session.start()
    provisioner.attach(made.session)
    try:
        yield made
    finally:
        await made.close()
        provisioner.detach(made.session)
        assert not [one.name for one in threading.enumerate() if one.name.startswith("relay-")]
        assert not [name for name in os.listdir(short) if name.startswith("k-")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
