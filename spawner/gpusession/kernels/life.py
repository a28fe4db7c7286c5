"""From a command to a kernel that answers, and from its process's end to "it is dead".

Exists once for Jupyter's own kernels (`provisioner`) and for those of other programs (`hosted`).
Promises: clients' requests wait until a new process answers and, after a crash, has its last saved
state; a process that never answers is ended; a kernel that moves or is being recovered is alive.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time

from gpulease import errors
from gpusession.kernels.move import START_SECONDS
from gpusession.kernels.ports import Cause, KernelCommand, KernelHost, RunningKernel
from gpusession.kernels.relay import Relay

log = logging.getLogger(__name__)

FOREIGN_START_SECONDS = 30.0
"""Kernels of other languages may take long to compile themselves, and may never answer on Unix sockets."""

OPEN_PORTS = "open_ports"
"""In a kernel spec's ``metadata.gpuhub``: true, where its author accepts what `_check_open_ports` refuses."""

NEWS_SECONDS = 0.3
"""How long after a process's end the session may take to say that it recovers the kernel."""

SETTLE_SECONDS = 30.0
"""How long a restart waits for a move of the kernel to end."""


async def start(relay: Relay, host: KernelHost, command: KernelCommand, cause: Cause) -> KernelCommand:
    """Start a process behind the relay; return the command that worked. On the session's loop.

    Raises GpuhubError, TimeoutError.
    """
    if cause != "start":
        await _settled(host, command.kernel_id)
        await relay.hold_start()
    try:
        try:
            await _start(relay, host, command)
        except (errors.Unavailable, TimeoutError) as error:
            if command.agent or command.transport == "tcp":
                raise
            _check_open_ports(host, command, error)
            log.info("kernel %s does not answer on Unix sockets; trying TCP", command.kernel_id)
            command = dataclasses.replace(command, transport="tcp")
            await _start(relay, host, command)
        await host.launched(relay, command, cause)
    finally:
        await relay.started()
    return command


def _check_open_ports(host: KernelHost, command: KernelCommand, error: Exception) -> None:
    """Raises InvalidOption where a port would tell other accounts what the kernel prints."""
    if host.alone or command.open_ports:
        return
    raise errors.InvalidOption(
        "This kernel does not answer on Unix sockets, and on ports every account of this machine could read "
        "what it prints.",
        hint=f'To accept it, write "metadata": {{"gpuhub": {{"{OPEN_PORTS}": true}}}} into its kernel spec.',
    ) from error


async def _start(relay: Relay, host: KernelHost, command: KernelCommand) -> None:
    process = await _process(host, command)
    try:
        await relay.prove(process, START_SECONDS if command.agent else FOREIGN_START_SECONDS)
        await relay.switch(process, anew=True)
    except BaseException:
        await asyncio.shield(process.kill())
        raise


async def _process(host: KernelHost, command: KernelCommand) -> RunningKernel:
    try:
        return await host.place_for(command.kernel_id).start_kernel(command)
    except errors.LinkLost:
        # The worker went away just now: the session knows in a moment, and names another place.
        await asyncio.sleep(1.0)
        return await host.place_for(command.kernel_id).start_kernel(command)


async def _settled(host: KernelHost, kernel_id: str) -> None:
    """A move whose kernel was ended under it ends by itself, soon."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLE_SECONDS
    while host.settling(kernel_id) and loop.time() < until:  # noqa: ASYNC110 - it is known across threads
        await asyncio.sleep(0.05)


async def death(relay: Relay, host: KernelHost, *, stopping: bool) -> int | None:
    """Return the exit status of a kernel that is dead for good, None for one that lives. On any loop.

    ``stopping``: a person ends it, so nobody will recover it.
    """
    if relay.lost_at is not None and not stopping:
        await asyncio.sleep(max(0.0, relay.lost_at + NEWS_SECONDS - time.monotonic()))
    if not stopping and host.settling(relay.kernel_id):
        return None
    running = relay.running
    if running is None or not running.exited.done():
        return None
    return running.exited.result()
