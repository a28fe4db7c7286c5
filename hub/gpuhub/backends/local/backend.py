"""GPUs of this machine: a worker is a unit of the launcher, started as its owner's account.

The launcher holds the truth about processes, so nothing is remembered here: after a crash of the
broker the next one sees every worker again, the lease's id being the unit's label. A worker runs
in the same Python prefix as its owner's server, so that a kernel finds the same packages there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gpuhub.backends.base import BackendError, Gpu, Phase, PoolOffer, WorkerOrder, WorkerSeen, offered
from gpulease.errors import GpuhubError
from gpulease.models import Device
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import ProcessSeen, UnitOrder, UnitSeen
from gpuspawner.names import server_unit_id, worker_name

FENCE_SECONDS = 60
LIST_SECONDS = 0.5
"""How long one list of units answers for several devices' telemetry."""

log = logging.getLogger(__name__)


GpuSource = Callable[[], Awaitable[Sequence[Gpu]]]


class LocalBackend:
    """The backend port on one machine.

    ``gpus`` tells which GPUs work now; ``prefix`` is where a worker runs whose owner has no server
    (a lease that a script asked for); ``environment`` is added to every worker's.
    """

    def __init__(
        self,
        client: LauncherClient,
        *,
        gpus: GpuSource,
        accounts: Accounts,
        prefix: str,
        environment: Mapping[str, str] | None = None,
        fence_seconds: int = FENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._gpus = gpus
        self._accounts = accounts
        self._prefix = prefix
        self._environment = dict(environment or {})
        self._fence_seconds = fence_seconds
        self._clock = clock
        self._listed: tuple[float, list[UnitSeen]] | None = None
        self._listing = asyncio.Lock()

    async def offers(self) -> tuple[PoolOffer, ...]:
        by_name: dict[str, list[Gpu]] = {}
        for gpu in await self._gpus():
            by_name.setdefault(pool_title(gpu), []).append(gpu)
        return tuple(
            PoolOffer(
                name=pool_name(title),
                title=title,
                memory_bytes=min(gpu.memory_bytes for gpu in gpus),
                total=len(gpus),
                simulated=gpus[0].simulated,
                devices=tuple(offered(gpu) for gpu in sorted(gpus, key=lambda gpu: gpu.index)),
            )
            for title, gpus in by_name.items()
        )

    async def start(self, order: WorkerOrder) -> None:
        unit_id = worker_unit_id(order.lease_id)
        try:
            units = {unit.id: unit for unit in await self._client.list(processes=False)}
            existing = units.get(unit_id)
            if existing is not None:
                if existing.label != order.lease_id:
                    raise BackendError(f"{unit_id} belongs to lease {existing.label}")
                if existing.phase == "running" and not existing.stopping:
                    # The server may have made a new key since; the worker reads it at each connection.
                    await self._client.write_file(unit_id, "authorized_key", order.public_key + "\n")
                return
            server = units.get(server_unit_id(order.user, order.server))
            prefix = server.prefix if server is not None and server.prefix else self._prefix
            await self._client.start(await self._unit(unit_id, order, prefix))
        except GpuhubError as error:
            raise BackendError(error.message) from error

    async def stop(self, lease_id: str, *, grace_seconds: float) -> None:
        try:
            await self._client.stop(worker_unit_id(lease_id), grace_seconds)
        except GpuhubError as error:
            raise BackendError(error.message) from error

    async def observe(self) -> Mapping[str, WorkerSeen]:
        try:
            units = await self._client.list()
        except GpuhubError as error:
            raise BackendError(error.message) from error
        self._listed = (self._clock(), units)
        return {unit.label: worker_seen(unit) for unit in units if unit.kind == "worker" and unit.label}

    async def forget(self, lease_id: str) -> None:
        try:
            await self._client.forget(worker_unit_id(lease_id))
        except GpuhubError as error:
            raise BackendError(error.message) from error

    async def server_running(self, user: str, server: str) -> bool | None:
        wanted = server_unit_id(user, server)
        try:
            units = await self._client.list(processes=False)
        except GpuhubError:
            return None
        return any(unit.id == wanted and unit.phase == "running" for unit in units)

    async def close(self) -> None:
        """Nothing to let go of: the client keeps no connection."""

    async def processes_on(self, device_id: str) -> Sequence[ProcessSeen]:
        """Return the processes of the worker that holds ``device_id``, for telemetry.

        Raises `BackendError` when that cannot be told now: no answer is not an empty one.
        """
        async with self._listing:
            if self._listed is None or self._clock() - self._listed[0] > LIST_SECONDS:
                try:
                    units = await self._client.list()
                except GpuhubError as error:
                    raise BackendError(error.message) from error
                self._listed = (self._clock(), units)
            units = self._listed[1]
        return [process for unit in units if device_id in unit.devices for process in unit.processes]

    async def _unit(self, unit_id: str, order: WorkerOrder, prefix: str) -> UnitOrder:
        known = {gpu.id: gpu for gpu in await self._gpus()}
        missing = [device for device in order.device_ids if device not in known]
        if missing or len(order.device_ids) != order.gpus:
            raise BackendError(f"GPU not working now: {', '.join(missing) or 'none was chosen'}")
        gpus = [known[device] for device in order.device_ids]
        account = await asyncio.to_thread(self._accounts.resolve, order.user)
        visible = ",".join(order.device_ids)
        devices = [
            Device(
                id=gpu.id,
                index=gpu.index,
                name=gpu.name,
                memory_bytes=gpu.memory_bytes,
                simulated=gpu.simulated,
            ).model_dump()
            for gpu in gpus
        ]
        environment = {
            **self._environment,
            "HOME": account.home,
            "PATH": f"{prefix.rstrip('/')}/bin:/usr/local/bin:/usr/bin:/bin",
            "GPUHUB_LEASE": order.lease_id,
            "GPUHUB_USER": order.user,
            "GPUHUB_DEVICES": json.dumps(devices),
            "GPUHUB_GRACE_SECONDS": str(order.grace_seconds),
            "GPUHUB_FENCE_SECONDS": str(self._fence_seconds),
            "CUDA_VISIBLE_DEVICES": visible,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "NVIDIA_VISIBLE_DEVICES": "void" if all(gpu.simulated for gpu in gpus) else visible,
        }
        return UnitOrder(
            kind="worker",
            id=unit_id,
            account=account,
            prefix=prefix,
            env=environment,
            devices=order.device_ids,
            files={"host_key": order.host_key, "authorized_key": order.public_key + "\n"},
            grace_seconds=float(order.grace_seconds),
            label=order.lease_id,
        )


def worker_unit_id(lease_id: str) -> str:
    """Return the unit of a lease's worker."""
    return worker_name("w-", lease_id)


def pool_title(gpu: Gpu) -> str:
    """Return what people read for this kind of GPU: 'NVIDIA H100 80GB HBM3', 'simulated GPU'."""
    return "simulated GPU" if gpu.simulated else gpu.name


def pool_name(title: str) -> str:
    """Return the pool's name for a title: 'nvidia-h100-80gb-hbm3', 'simulated'."""
    if title == "simulated GPU":
        return "simulated"
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:63] or "gpu"


def worker_seen(unit: UnitSeen) -> WorkerSeen:
    """Translate what the launcher sees. What the worker says of itself is checked, not believed."""
    address = None
    if unit.phase == "exited":
        phase = Phase.EXITED
    elif unit.stopping:
        phase = Phase.STOPPING
    else:
        address = _address(unit)
        phase = Phase.READY if address else Phase.STARTING
    return WorkerSeen(
        lease_id=unit.label,
        phase=phase,
        address=address,
        device_ids=unit.devices,
        message=_message(unit) if phase is Phase.EXITED else "",
    )


def _address(unit: UnitSeen) -> str | None:
    said = (unit.ready or {}).get("address")
    inside = re.escape(f"unix:{unit.folder}/")
    return (
        said
        if isinstance(said, str) and re.fullmatch(rf"{inside}[A-Za-z0-9_-][A-Za-z0-9._-]*", said)
        else None
    )


def _message(unit: UnitSeen) -> str:
    if unit.message:
        return unit.message
    if unit.exit_status is None or unit.exit_status == 0:
        return "The worker has ended."
    if unit.exit_status == 126:
        return "The worker could not be started in this environment."
    if unit.exit_status < 0:
        return f"The worker was ended by signal {-unit.exit_status}."
    return f"The worker ended with status {unit.exit_status}."
