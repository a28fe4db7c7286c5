"""The port between broker and machines: what the broker needs from a place that has GPUs.

Every adapter passes one contract suite (``tests/contracts``). The rules that the suite checks:

* `Backend.start` and `Backend.stop` are idempotent by lease id: asked twice is asked once.
* `Backend.observe` tells the truth about what exists, also about workers that this process has
  not started itself (an earlier one did): after a crash of the broker nothing is forgotten.
* A worker that has stopped is seen as `Phase.EXITED` until `Backend.forget`, so that an exit
  between two looks is never missed.
* A device is free for the next lease only when nothing of the last one runs on it.
* A worker that waits for room says so (`WorkerSeen.waiting`): waiting is not failing, no time limit runs.
* A backend that cannot see raises; an answer from memory would look like a world that stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class BackendError(Exception):
    """The backend could not do it now. The message is for the log; trying again may help."""


class StartRefused(BackendError):
    """The place does not take the worker now. The message is a sentence for the lease's owner."""


@dataclass(frozen=True)
class DeviceOffer:
    """One GPU that works now."""

    id: str
    index: int
    name: str
    memory_bytes: int
    simulated: bool = False


class Gpu(Protocol):
    """What must be known of one GPU to offer it (telemetry's inventory and devices fit)."""

    @property
    def id(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def simulated(self) -> bool: ...


def offered(gpu: Gpu) -> DeviceOffer:
    return DeviceOffer(gpu.id, gpu.index, gpu.name, gpu.memory_bytes, gpu.simulated)


@dataclass(frozen=True)
class PoolOffer:
    """A kind of GPU and what of it works now.

    ``devices`` is empty where somebody else chooses them (a cluster's scheduler); ``total`` counts
    either way.
    """

    name: str
    title: str
    memory_bytes: int
    total: int
    simulated: bool = False
    devices: tuple[DeviceOffer, ...] = ()


@dataclass(frozen=True)
class WorkerOrder:
    """Everything that a backend must know to start a lease's worker."""

    lease_id: str
    user: str
    server: str
    pool: str
    gpus: int
    device_ids: tuple[str, ...]
    public_key: str
    """The owner's server's public key: the only one that the worker lets in."""
    host_key: str = field(repr=False)
    """The worker's private host key, OpenSSH form. Its public half is in the lease."""
    grace_seconds: int
    """How long the worker may save by itself when it is told to stop, or finds itself alone."""


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    EXITED = "exited"


@dataclass(frozen=True)
class WorkerSeen:
    """A worker as it is now."""

    lease_id: str
    phase: Phase
    address: str | None = None
    """``unix:/path`` or ``tcp:host:port`` once it is READY."""
    device_ids: tuple[str, ...] = ()
    message: str = ""
    """What it waits for, what holds its start up, or why it exited: one sentence for a person."""
    waiting: bool = False
    """STARTING, and there is no room for it yet: somebody else (a cluster's scheduler) makes it wait."""
    devices: tuple[DeviceOffer, ...] = ()
    """Its GPUs, where the pool's offer does not name them and they are known by now."""


class Backend(Protocol):
    """A place that has GPUs."""

    async def offers(self) -> tuple[PoolOffer, ...]:
        """Return what works now. A broken GPU is simply not in it."""

    async def start(self, order: WorkerOrder) -> None:
        """Start the lease's worker, unless it exists. Return at once; `observe` shows progress.

        Raises `StartRefused` where its owner can be told why not.
        """

    async def stop(self, lease_id: str, *, grace_seconds: float) -> None:
        """Ask the worker to stop; after ``grace_seconds`` it is made to. Unknown leases are fine."""

    async def observe(self) -> Mapping[str, WorkerSeen]:
        """Return every worker that exists or has exited and is not yet forgotten, by lease id."""

    async def forget(self, lease_id: str) -> None:
        """Drop the memory of an exited worker, and everything that was made for it."""

    async def server_running(self, user: str, server: str) -> bool | None:
        """Whether the owner's server process exists; None when that cannot be told here."""

    async def close(self) -> None:
        """Let go of connections. Workers go on."""
