"""A kernel on the worker: one process, its sockets, and which connection it belongs to.

Promises: its end is told at once; a kernel that nobody claims is asked to save itself before it is
killed; a parked one (stopped after its state has moved away) is not, for what it would save is old.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gpusession.kernels.launch import KernelFiles, KernelProcess, lay_out, start_process
from gpusession.worker.program import cannot_start, check_folder
from gpusession.worker.protocol import StartKernel


class Owner(Protocol):
    """A connection, as far as what runs here knows it."""

    def tell(self, event: Mapping[str, Any]) -> None: ...


class WorkerKernel:
    """One kernel process here."""

    def __init__(
        self, target: str, kernel_id: str, process: KernelProcess, files: KernelFiles, folder: Path
    ) -> None:
        self.target, self.kernel_id = target, kernel_id
        self.owner: Owner | None = None
        """The connection that answers for it; None: the fence runs."""
        self.parked = False
        self.ending = False
        self._process, self._files, self._folder = process, files, folder
        self.exited.add_done_callback(lambda _done: shutil.rmtree(folder, ignore_errors=True))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exited(self) -> asyncio.Future[int]:
        return self._process.exited

    def shown(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "kernel": self.kernel_id,
            "pid": self.pid,
            "channels": {name: address.removeprefix("ipc://") for name, address in self.channels.items()},
            "parked": self.parked,
        }

    @property
    def channels(self) -> Mapping[str, str]:
        return self._files.channels

    async def signal(self, number: int) -> None:
        if self.exited.done():
            return
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.parked = number == signal.SIGSTOP
        await self._process.signal(number)

    async def ask_to_save(self) -> None:
        """SIGTERM makes our kernel save itself and end. Idempotent."""
        if self.ending or self.exited.done():
            return
        self.ending = True
        if self.parked:
            await self.kill()
        else:
            await self._process.signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End it now, with all its children, and wait until it is gone. Idempotent."""
        self.ending = True
        await self._process.kill()


async def start_kernel(
    order: StartKernel, env: Mapping[str, str], target: str, runtime: Path
) -> WorkerKernel:
    """Start the kernel that ``order`` describes. Raises InvalidOption with the reason."""
    check_folder(order.cwd)
    folder = runtime / target
    folder.mkdir(mode=0o700)
    try:
        files = lay_out(folder, bytes.fromhex(order.key), order.name)
        argv = [part.replace("{connection_file}", str(files.connection_file)) for part in order.argv]
        process = await start_process(argv, env=env, cwd=order.cwd)
    except (OSError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_start(order.argv[0], error) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return WorkerKernel(target, order.kernel, process, files, folder)
