"""A real broker in a process of its own (store, reconciler, API), over a cluster that is played.

Its workers start at once, their GPUs are what the agent says of their pods; its gate knows the tokens that a
file names. ``python -m tests.service.agent.broker_process PORT FOLDER`` (policy.yaml, tokens.json in FOLDER).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gpuhub.api import logs
from gpuhub.api.agents import Agents
from gpuhub.api.app import make_app
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.serving import serve
from gpuhub.api.signin import SignIn
from gpuhub.backends.base import DeviceOffer, PoolOffer, WorkerSeen
from gpuhub.broker.assembly import Broker
from gpuhub.broker.settings import load_policy
from gpuhub.store import Store
from gpuhub.telemetry.base import Allocations
from gpuhub.telemetry.pushed import PushedTelemetry
from gpuhub.telemetry.sampler import Sampler
from gpulease.errors import NotAllowed
from tests.fakes import WorkersThatStart
from tests.unit.api.broker import HUB, SERVICE_TOKEN, KnowsThree

NODE, NAMESPACE = "node-1", "users"
POOL = PoolOffer("h100", "NVIDIA H100 (simulated)", 80 * 1024**3, total=2, simulated=True)


def pod_of(lease_id: str) -> str:
    return f"gpu-{lease_id[:12]}"


class SchedulerChooses(WorkersThatStart):
    """Workers whose GPUs somebody else chose: known once the agent of their node says so."""

    def __init__(self, allocations: Allocations) -> None:
        super().__init__(POOL)
        self._allocations = allocations

    async def observe(self) -> Mapping[str, WorkerSeen]:
        seen = await super().observe()
        return {lease_id: self._with_devices(worker) for lease_id, worker in seen.items()}

    def _with_devices(self, worker: WorkerSeen) -> WorkerSeen:
        known = self._allocations(NODE, NAMESPACE, pod_of(worker.lease_id)) or ()
        devices = tuple(
            DeviceOffer(one.id, one.index, one.name, one.memory_bytes, one.simulated) for one in known
        )
        return replace(worker, device_ids=tuple(one.id for one in known), devices=devices)


class TokensInAFile:
    """The gate: ``{token: node}``, read anew each time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def admit(self, token: str, node: str) -> None:
        if json.loads(self._file.read_text()).get(token) != node:
            raise NotAllowed(f"This agent runs on another node than {node}.")


async def main(port: int, folder: Path) -> None:
    logs.configure(sys.stdout)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = await Store.open(f"sqlite+aiosqlite:///{folder}/gpuhub.sqlite")
    pushed = PushedTelemetry()
    backend = SchedulerChooses(pushed.allocations)
    hub = KnowsThree()
    async with Broker(store, backend, Sampler(pushed), load_policy(folder / "policy.yaml")) as broker:
        parts = Parts(
            broker=broker.service,
            tokens=HubTokens(HUB, transport=hub),
            people=People(HUB, SERVICE_TOKEN, transport=hub),
            signin=SignIn(HUB, SERVICE_TOKEN, transport=hub),
            metrics=broker.metrics.render,
            agents=Agents(TokensInAFile(folder / "tokens.json"), pushed),
        )
        await serve(make_app(parts), "127.0.0.1", port, stop=stop, closing=parts.closing)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
