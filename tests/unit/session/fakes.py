"""Stand-ins at the session's ports, named after what they do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gpulease import errors
from gpulease.events import Event
from gpulease.models import (
    Acknowledge,
    Lease,
    LeaseRequest,
    Link,
    Me,
    Policy,
    UsageSeries,
)
from gpulease.session import Placement, SnapshotInfo
from gpulease.states import EndReason, LeaseState
from gpusession.kernels.ports import CHANNELS, LINK_LOST, AgentError, KernelCommand
from gpusession.leases import KeyPair

HOST_KEY = "ssh-ed25519 " + "A" * 68


def now() -> datetime:
    return datetime.now(UTC)


def counting_ids(prefix: str = "id") -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers)}"


class Process:
    """A kernel process with a namespace instead of a body."""

    def __init__(self, placement: Placement) -> None:
        self.placement: Placement = placement
        self.channels = {name: f"ipc://{id(self)}-{name}" for name in CHANNELS}
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pid = 4711
        self.names: dict[str, Any] = {}
        self.stopped = False
        self.signals: list[int] = []

    async def signal(self, signum: int) -> None:
        self.signals.append(signum)
        if signum in (signal.SIGSTOP, signal.SIGCONT):
            self.stopped = signum == signal.SIGSTOP

    async def kill(self) -> None:
        self.end(-9)

    def end(self, status: int) -> None:
        if not self.exited.done():
            self.exited.set_result(status)


class SomewhereToRun:
    """A place whose kernels start at once."""

    def __init__(self, placement: Placement) -> None:
        self.placement: Placement = placement
        self.started: list[Process] = []

    async def start_kernel(self, command: KernelCommand) -> Process:
        process = Process(self.placement)
        self.started.append(process)
        return process


class NowhereToRun:
    """A place that cannot start anything."""

    placement: Placement = "worker"

    async def start_kernel(self, command: KernelCommand) -> Process:
        raise errors.LinkLost("The worker cannot be reached.")


class Snapshots:
    """A disk: what was saved, by id."""

    keep_per_notebook, keep_bytes = 5, 20e9

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.infos: dict[str, SnapshotInfo] = {}
        self.names: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)

    def add(self, names: dict[str, Any], meta: Mapping[str, Any], verdicts: list[dict[str, Any]]) -> str:
        snapshot_id = f"s{next(self._numbers)}"
        self.names[snapshot_id] = dict(names)
        self.infos[snapshot_id] = SnapshotInfo(
            id=snapshot_id,
            notebook=meta.get("notebook"),
            kernel=meta["kernel"],
            created_at=now(),
            reason=meta["reason"],
            bytes=8 * len(names),
            python="3.11.7",
            complete=True,
            kept=len(names),
            left=sum(one["verdict"] == "left" for one in verdicts),
            verdicts=verdicts,
        )
        return snapshot_id

    def list(self) -> list[SnapshotInfo]:
        return sorted(self.infos.values(), key=lambda one: one.created_at, reverse=True)

    def prune(self) -> list[str]:
        """Room for all."""
        return []

    def total_bytes(self) -> int:
        return sum(one.bytes for one in self.infos.values())

    def delete(self, snapshot_id: str) -> None:
        if self.infos.pop(snapshot_id, None) is None:
            raise errors.NotFound("This saved state is not there any more.")


class NamespaceAgent:
    """An agent that saves and loads a process's names; ``files`` in them stay behind.

    ``fail`` maps an op to the error that it raises; ``hang`` names ops that never answer until
    `resume`.
    """

    def __init__(self, process: Process, disk: Snapshots, faults: Faults) -> None:
        self.process, self.disk, self.faults = process, disk, faults

    def _verdicts(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "type": type(value).__name__,
                "verdict": "left" if value == "FILE" else "kept",
                "reason": "An open file." if value == "FILE" else None,
                "bytes": 8,
            }
            for name, value in self.process.names.items()
        ]

    async def request(
        self,
        op: str,
        content: Mapping[str, Any] | None = None,
        *,
        channel: str = "shell",
        timeout_seconds: float | None = None,
        progress: Any = None,
    ) -> dict[str, Any]:
        content = content or {}
        self.faults.calls.append((self.process.placement, op))
        await self.faults.at(op, self.process)
        await asyncio.sleep(0)
        verdicts = self._verdicts()
        if op == "check":
            return {"verdicts": verdicts, "bytes": 8 * len(verdicts)}
        if op == "save":
            if content["accept"] == "none" and any(one["verdict"] == "left" for one in verdicts):
                raise AgentError("left-needs-consent", "Something stays.", {"verdicts": verdicts})
            kept = {name: value for name, value in self.process.names.items() if value != "FILE"}
            if progress:
                progress(4, 8)
            return {
                "snapshot": self.disk.add(kept, content["meta"], verdicts),
                "bytes": 8 * len(kept),
                "verdicts": verdicts,
            }
        if op == "load":
            snapshot = Path(content["folder"]).name
            self.process.names.update(self.disk.names[snapshot])
            return {"verdicts": self._verdicts()}
        if op == "automatic":
            if not (self.faults.forks and content["fork"]):
                return {"forked": False, "why": "a GPU is in use"}
            self.faults.copied = dict(self.process.names)
            return {"forked": True, "snapshot": "copy"}
        if op == "background":
            if self.faults.copy_fails is not None:
                return {"running": False, "outcome": self.faults.copy_fails}
            meta = {"kernel": "k1", "notebook": "k1.ipynb", "reason": "automatic"}
            self.disk.add(self.faults.copied, meta, [])
            return {"running": False, "outcome": {"status": "ok"}}
        if op == "modules":
            return {"modules": ["math"]}
        if op == "prepare":
            return {"failed": {}}
        return {"agent": "0", "python": "3.11.7"}


class Faults:
    """What goes wrong, and when: shared by all agents of one test."""

    def __init__(self) -> None:
        self.fail: dict[str, Exception] = {}
        self.hang: set[str] = set()
        self.then: dict[str, Callable[[], None]] = {}
        self.calls: list[tuple[str, str]] = []
        self.forks = True
        self.copied: dict[str, Any] = {}
        self.copy_fails: dict[str, Any] | None = None
        self.reached: dict[str, asyncio.Event] = {}
        self._resumed = asyncio.Event()

    def resume(self) -> None:
        self.hang.clear()
        self._resumed.set()

    async def at(self, op: str, process: Process | None) -> None:
        self.reached.setdefault(op, asyncio.Event()).set()
        if op in self.then:
            self.then.pop(op)()
        if op in self.hang:
            await self._resumed.wait()
        if op in self.fail:
            raise self.fail[op]
        if process is not None and process.exited.done():
            await asyncio.get_running_loop().create_future()

    async def until(self, op: str) -> None:
        await asyncio.wait_for(self.reached.setdefault(op, asyncio.Event()).wait(), 5)


class RelayedKernel:
    """An endpoint without sockets: cells are functions that tests run by hand."""

    def __init__(self, kernel_id: str, disk: Snapshots, faults: Faults, first: Process) -> None:
        self.kernel_id, self.disk, self.faults = kernel_id, disk, faults
        self.running: Process | None = first
        self.on_work: Callable[[], None] = lambda: None
        self.in_flight: str | None = None
        self.waits_for_input = False
        self.succeeded = 0
        self.finished = 0
        self.waiting = 0
        self.held = False
        self.queue: list[str] = []
        self.failed: list[str] = []
        self.aborted: list[str] = []
        self.proven: list[Process] = []
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def agent(self) -> NamespaceAgent:
        assert self.running is not None
        return NamespaceAgent(self.running, self.disk, self.faults)

    def run_cell(self, code: str) -> None:
        self.in_flight = code
        self._idle.clear()
        self.on_work()

    def end_cell(self) -> None:
        self.in_flight = None
        self.succeeded += 1
        self.finished += 1
        self._idle.set()
        self.on_work()

    async def prove(self, candidate: Process, timeout_seconds: float) -> NamespaceAgent:
        await self.faults.at("prove", candidate)
        self.proven.append(candidate)
        return NamespaceAgent(candidate, self.disk, self.faults)

    async def discard(self, candidate: Process) -> None:
        with contextlib.suppress(ValueError):
            self.proven.remove(candidate)

    async def hold(self) -> None:
        self.held = True

    async def drain(self, timeout_seconds: float | None = None) -> None:
        await self.faults.at("drain", self.running)
        await asyncio.wait_for(self._idle.wait(), timeout_seconds)

    async def release(self) -> None:
        self.held = False

    async def switch(self, candidate: Process) -> Process | None:
        old, self.running, self.succeeded = self.running, candidate, 0
        return old

    async def fail_in_flight(self, ename: str, evalue: str) -> str | None:
        code, self.in_flight = self.in_flight, None
        self._idle.set()
        self.on_work()
        if code is not None:
            self.failed.append(f"{ename}: {evalue}")
        return code

    async def abort_held(self) -> int:
        self.aborted += self.queue
        count, self.queue = len(self.queue), []
        return count


class WorkerAtHand:
    """A link to a worker whose place starts kernels at once."""

    def __init__(self) -> None:
        self.place = SomewhereToRun("worker")
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def close(self) -> None:
        self.closed = True

    def cut(self) -> None:
        if not self.lost.done():
            self.lost.set_result("cut")
        for process in self.place.started:
            process.end(LINK_LOST)


class BrokerByHand:
    """A broker whose leases tests push through their states; ``generous`` grants at once."""

    def __init__(self, *, generous: bool = True) -> None:
        self.generous = generous
        self.leases: dict[str, Lease] = {}
        self.keys: dict[str, list[str]] = {}
        self.by_key: dict[str, str] = {}
        self.acks: list[tuple[str, Acknowledge]] = []
        self.cells: list[tuple[str, bool]] = []
        self.away = False
        self.lose_answers = 0
        self.releasing = asyncio.Event()
        self.release_may_end = asyncio.Event()
        self.release_may_end.set()
        self.policy = Policy(idle_after_seconds=600, warn_seconds=300, keep_minutes=30, keep_times=2)
        self.requests: list[tuple[LeaseRequest, str]] = []
        self.refuse: errors.GpuhubError | None = None
        self.streams_from: list[int | None] = []
        self._events: list[Event] = []
        self._news = asyncio.Condition()
        self._numbers = itertools.count(1)
        self._reader_gone = 0

    def _answer(self) -> None:
        if self.away:
            raise errors.Unavailable("The GPU service does not answer at the moment.")

    async def _publish(self, lease: Lease) -> Lease:
        self.leases[lease.id] = lease
        await self.say("lease", lease.model_dump(mode="json"))
        return lease

    async def say(self, kind: Any, data: dict[str, Any]) -> None:
        """Send an event, whatever is in it."""
        async with self._news:
            self._events.append(Event(id=len(self._events) + 1, kind=kind, at=now(), data=data))
            self._news.notify_all()

    async def change(self, lease_id: str, **changes: Any) -> Lease:
        lease = self.leases[lease_id]
        return await self._publish(lease.model_copy(update={"revision": lease.revision + 1, **changes}))

    async def activate(self, lease_id: str) -> Lease:
        link = Link(address="unix:/somewhere", host_key=HOST_KEY)
        return await self.change(lease_id, state=LeaseState.ACTIVE, link=link, position=None)

    async def end(self, lease_id: str, reason: EndReason = EndReason.RELEASED) -> Lease:
        return await self.change(
            lease_id, state=LeaseState.ENDED, reason=reason, ended_at=now(), link=None, ending=None
        )

    async def cut_streams(self) -> None:
        async with self._news:
            self._reader_gone += 1
            self._news.notify_all()

    async def grant_to_server(self, server: str = "", **more: Any) -> Lease:
        """Somebody else asks for a lease of this server, without its key."""
        lease = self._new(LeaseRequest(server=server)).model_copy(update=more)
        return await self._publish(lease)

    def _new(self, request: LeaseRequest) -> Lease:
        return Lease(
            id=f"lease{next(self._numbers)}",
            revision=1,
            user="ann",
            server=request.server,
            pool=request.pool or "sim",
            gpus=request.gpus,
            state=LeaseState.QUEUED,
            created_at=now(),
        )

    # --- gpusession.leases.Broker

    async def me(self) -> Me:
        self._answer()
        live = [one for one in self.leases.values() if one.state is not LeaseState.ENDED]
        return Me(user="ann", admin=False, pools=[], quotas=[], leases=live, policy=self.policy)

    async def request(self, request: LeaseRequest, idempotency_key: str) -> Lease:
        self._answer()
        self.requests.append((request, idempotency_key))
        if self.refuse is not None:
            raise self.refuse
        if idempotency_key not in self.by_key:
            lease = self._new(request)
            self.by_key[idempotency_key] = lease.id
            self.keys[lease.id] = [request.public_key or ""]
            await self._publish(lease)
            if self.generous:
                await self.activate(lease.id)
        if self.lose_answers:
            self.lose_answers -= 1
            raise errors.Unavailable("The answer was lost.")
        return self.leases[self.by_key[idempotency_key]]

    async def lease(self, lease_id: str) -> Lease:
        self._answer()
        if lease_id not in self.leases:
            raise errors.NotFound("No such lease.")
        return self.leases[lease_id]

    async def set_key(self, lease_id: str, public_key: str) -> Lease:
        self._answer()
        self.keys.setdefault(lease_id, []).append(public_key)
        return await self.change(lease_id, needs_key=False)

    async def keep(self, lease_id: str) -> Lease:
        self._answer()
        return await self.change(lease_id, warning=None)

    async def release(self, lease_id: str) -> Lease:
        self._answer()
        self.releasing.set()
        await self.release_may_end.wait()
        lease = self.leases[lease_id]
        if lease.state is LeaseState.QUEUED:
            return await self.end(lease_id, EndReason.CANCELLED)
        return await self.begin_end(lease_id)

    async def begin_end(
        self, lease_id: str, reason: EndReason = EndReason.RELEASED, seconds: float = 120.0
    ) -> Lease:
        ending = {"reason": reason, "deadline": now() + timedelta(seconds=seconds), "message": "Ends."}
        lease = self.leases[lease_id].model_copy(update={"state": LeaseState.ENDING, "reason": reason})
        data = {**lease.model_dump(), "ending": ending, "revision": lease.revision + 1}
        return await self._publish(Lease.model_validate(data))

    async def hint_cell(self, lease_id: str, running: bool) -> None:
        self._answer()
        self.cells.append((lease_id, running))

    async def acknowledge(self, lease_id: str, done: Acknowledge) -> Lease:
        self._answer()
        self.acks.append((lease_id, done))
        reason = EndReason.SERVER_STOPPED if done.reason else self.leases[lease_id].reason
        return await self.end(lease_id, reason or EndReason.RELEASED)

    async def usage(self, lease_id: str) -> UsageSeries:
        return UsageSeries(times=[], utilisation_percent=[], memory_bytes=[])

    async def events(self, last_event_id: int | None = None) -> AsyncIterator[Event]:
        self._answer()
        self.streams_from.append(last_event_id)
        read = len(self._events) if last_event_id is None else last_event_id
        gone = self._reader_gone
        while True:
            async with self._news:
                while len(self._events) <= read and gone == self._reader_gone:
                    await self._news.wait()
                if gone != self._reader_gone:
                    raise errors.Unavailable("The stream of events was cut.")
                fresh = self._events[read:]
            for event in fresh:
                read += 1
                yield event

    async def close(self) -> None:
        return


def make_key() -> KeyPair:
    return KeyPair(private="private", public="ssh-ed25519 " + "B" * 68)
