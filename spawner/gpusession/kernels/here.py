"""Kernels on this machine, beside the server.

Promises: they see no GPU and no secret; their sockets are out of other users' reach; when one
ends, nothing of it is left, neither process nor file.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from gpulease import errors
from gpulease.session import Placement
from gpusession.kernels.environment import on_server
from gpusession.kernels.launch import KernelFiles, KernelProcess, lay_out, start_process
from gpusession.kernels.ports import KernelCommand


class HereKernel:
    """One kernel process here (`ports.RunningKernel`)."""

    def __init__(self, placement: Placement, process: KernelProcess, files: KernelFiles) -> None:
        self.placement: Placement = placement
        self.channels: Mapping[str, str] = files.channels
        self._process = process

    @property
    def exited(self) -> asyncio.Future[int]:
        return self._process.exited

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def signal(self, signum: int) -> None:
        await self._process.signal(signum)

    async def kill(self) -> None:
        await self._process.kill()


class HerePlace:
    """The `ports.Place` of this machine.

    ``runtime``: a short path to a private folder, for sockets; made when it is missing.
    ``environment``: what becomes of a command's environment.
    """

    def __init__(
        self,
        runtime: Path,
        *,
        placement: Placement = "server",
        environment: Callable[[Mapping[str, str]], dict[str, str]] = on_server,
        log: Path | None = None,
    ) -> None:
        self.placement: Placement = placement
        self._runtime, self._environment, self._log = runtime, environment, log

    async def start_kernel(self, command: KernelCommand) -> HereKernel:
        cwd = _folder(command.cwd)
        folder = _own_folder(self._runtime)
        try:
            files = lay_out(folder, command.key, command.kernel_id, transport=command.transport)
            argv = [part.replace("{connection_file}", str(files.connection_file)) for part in command.argv]
            process = await start_process(argv, env=self._environment(command.env), cwd=cwd, log=self._log)
        except (OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise errors.InvalidOption(
                f"The notebook's kernel could not be started: {error}.",
                hint="Its kernel spec or its environment may be broken; choose another kernel.",
            ) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        process.exited.add_done_callback(lambda _status: shutil.rmtree(folder, ignore_errors=True))
        return HereKernel(self.placement, process, files)


def _folder(wanted: str) -> str:
    """A notebook whose folder was removed still gets a kernel."""
    return wanted if os.path.isdir(wanted) else os.path.expanduser("~")


def _own_folder(runtime: Path) -> Path:
    """Two kernels in one folder would take each other's sockets away."""
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="k-", dir=runtime))
