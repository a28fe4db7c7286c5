"""An in-memory broker for other people's tests: real HTTP, real events, no hub, no store, no GPUs.

Exists so that a server, the ``gpu`` command or a script can be tried against the broker's contract
without installing the broker. Promises: what it says has the form of `gpulease.models`; refusals are
those of `gpulease.errors`; requests are idempotent by their key; events have ids and can be resumed.
It grants in order of asking, as long as a GPU is free, and ends a lease on the acknowledgement.

::

    broker = MemoryBroker(tokens={"secret": "ann"}, gpus=1)
    url = await broker.start()            # BrokerClient(url, "secret")
    await broker.warn(lease_id)           # then: keep, or …
    await broker.end(lease_id, EndReason.IDLE)
    await broker.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ValidationError

from gpulease import errors
from gpulease.events import encode
from gpulease.models import (
    MAX_BODY_BYTES,
    Acknowledge,
    CellHint,
    Device,
    Ending,
    Keep,
    Lease,
    LeaseList,
    LeaseRequest,
    Link,
    LinkKey,
    Me,
    Policy,
    Pool,
    PoolList,
    Position,
    QuotaUse,
    Usage,
    UsageSeries,
    Warn,
)
from gpulease.states import EndReason, LeaseState

PREFIX = "/services/gpu"
POOL = "sim"
MEMORY_BYTES = 8_000_000_000
HOST_KEY = "ssh-ed25519 " + "A" * 68

StartWorker = Callable[[Lease, str], Awaitable[Link]]
"""Given a granted lease and its server's public key, start its worker."""
StopWorker = Callable[[Lease], Awaitable[None]]


async def _no_worker(lease: Lease, public_key: str) -> Link:
    return Link(address=f"unix:/nowhere/{lease.id}", host_key=HOST_KEY)


async def _nothing(lease: Lease) -> None:
    return None


class MemoryBroker:
    """See the module. ``gpus``: how many there are; each person may hold all of them."""

    def __init__(
        self,
        *,
        tokens: Mapping[str, str],
        gpus: int = 2,
        start_worker: StartWorker = _no_worker,
        stop_worker: StopWorker = _nothing,
        ending_seconds: float = 60.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.tokens, self.gpus, self.ending_seconds = dict(tokens), gpus, ending_seconds
        self.leases: dict[str, Lease] = {}
        self.acknowledged: dict[str, Acknowledge] = {}
        self.running_cells: dict[str, bool] = {}
        """What servers hinted last, by lease: a cell or a program runs on the GPU."""
        self.refuse: errors.GpuhubError | None = None
        """What the next requests for a lease are answered; None: they are granted or queued."""
        self.away = False
        self._start_worker, self._stop_worker, self._now = start_worker, stop_worker, now
        self._public_keys: dict[str, str] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._events: list[tuple[str, str, str]] = []
        self._news = asyncio.Condition()
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    # --- life

    async def start(self, port: int = 0) -> str:
        """Begin to answer; returns the url for `gpulease.client.BrokerClient`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}{PREFIX}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what a test makes happen

    async def warn(self, lease_id: str, seconds: float = 300.0, times_left: int = 2) -> Lease:
        """Say that the GPU is idle."""
        at = self._now() + timedelta(seconds=seconds)
        keep = Keep(minutes=30, times_left=times_left)
        message = "The GPU has been idle for 10 min."
        warning = Warn(reason=EndReason.IDLE, at=at, message=message, keep=keep, resident_bytes=None)
        return await self._change(lease_id, warning=warning)

    async def sample(self, lease_id: str, percent: float, memory_bytes: int) -> None:
        """A telemetry event."""
        usage = Usage(
            at=self._now(),
            utilisation_percent=percent,
            memory_bytes=memory_bytes,
            memory_total_bytes=MEMORY_BYTES,
            simulated=True,
        )
        self.leases[lease_id] = self.leases[lease_id].model_copy(update={"usage": usage})
        data = {"lease": lease_id, "usage": usage.model_dump(mode="json"), "idle_seconds": 0.0}
        await self._publish(self.leases[lease_id].user, "usage", data)

    async def end(self, lease_id: str, reason: EndReason = EndReason.REVOKED) -> Lease:
        """Take a lease back: with a deadline where a worker holds it, at once where it only waits."""
        lease = self.leases[lease_id]
        if lease.state is LeaseState.QUEUED:
            return await self.finish(lease_id, reason)
        if lease.state in (LeaseState.ENDING, LeaseState.ENDED):
            return lease
        deadline = self._now() + timedelta(seconds=self.ending_seconds)
        ending = Ending(reason=reason, deadline=deadline, message="The GPU is being taken back.")
        changes: dict[str, Any] = {"state": LeaseState.ENDING, "reason": reason, "ending": ending}
        lease = await self._change(lease_id, **changes, warning=None)
        self._spawn(self._enforce(lease_id, deadline))
        return lease

    async def ask(self, user: str, *, gpus: int = 1, server: str = "") -> Lease:
        """Somebody asks for GPUs, without a server that speaks for him."""
        wish = LeaseRequest.model_validate({"gpus": gpus, "server": server})
        return await self._request(wish, None, user)

    async def go_away(self, away: bool = True) -> None:
        """Answer nothing but 503 and end all streams, as while it is restarted; False: be there again."""
        self.away = away
        async with self._news:
            self._news.notify_all()

    async def _enforce(self, lease_id: str, deadline: datetime) -> None:
        await asyncio.sleep((deadline - self._now()).total_seconds())
        await self.finish(lease_id)

    async def finish(self, lease_id: str, reason: EndReason | None = None) -> Lease:
        """A lease is over: its GPUs are free and go to the next in line."""
        lease = self.leases[lease_id]
        if lease.state is LeaseState.ENDED:
            return lease
        why = reason or lease.reason or EndReason.RELEASED
        changes = {"reason": why, "ended_at": self._now(), "link": None, "ending": None, "warning": None}
        lease = await self._change(lease_id, state=LeaseState.ENDED, position=None, **changes)
        await self._stop_worker(lease)
        await self._schedule()
        return lease

    async def _schedule(self) -> None:
        place = itertools.count(1)
        for lease in sorted(self.leases.values(), key=lambda one: (one.created_at, int(one.id, 16))):
            if lease.state is not LeaseState.QUEUED:
                continue
            if self._free() >= lease.gpus:
                self._spawn(self._grant(lease.id))
                await self._change(lease.id, state=LeaseState.STARTING, position=None, granted_at=self._now())
                continue
            number = next(place)
            facts: dict[str, Any] = {"waiting_for": "gpu", "estimated_start": None}
            position = Position(place=number, ahead=number - 1, message="All GPUs are in use.", **facts)
            if lease.position != position:
                await self._change(lease.id, position=position)

    async def _grant(self, lease_id: str) -> None:
        if lease_id not in self._public_keys:
            await self._change(lease_id, needs_key=True)
        while lease_id not in self._public_keys:
            async with self._news:
                await self._news.wait()
        lease = self.leases[lease_id]
        try:
            link = await self._start_worker(lease, self._public_keys[lease_id])
        except OSError:
            await self.finish(lease_id, EndReason.FAILED)
            return
        if self.leases[lease_id].state is LeaseState.STARTING:
            name = "simulated GPU"
            devices = [
                Device(id=f"SIM-{n}", index=n, name=name, memory_bytes=MEMORY_BYTES, simulated=True)
                for n in range(lease.gpus)
            ]
            ends_at = self._now() + timedelta(hours=12)
            changes = {"link": link, "devices": devices, "active_at": self._now(), "ends_at": ends_at}
            await self._change(lease_id, state=LeaseState.ACTIVE, needs_key=False, **changes)

    def _free(self) -> int:
        idle = (LeaseState.QUEUED, LeaseState.ENDED)
        return self.gpus - sum(one.gpus for one in self.leases.values() if one.state not in idle)

    def _pools(self) -> list[Pool]:
        waiting = sum(one.state is LeaseState.QUEUED for one in self.leases.values())
        facts: dict[str, Any] = {"simulated": True, "total": self.gpus, "free": self._free()}
        pool = Pool(name=POOL, title="simulated GPU", memory_bytes=MEMORY_BYTES, waiting=waiting, **facts)
        return [pool]

    async def _change(self, lease_id: str, **changes: Any) -> Lease:
        lease = self.leases[lease_id]
        lease = lease.model_copy(update={"revision": lease.revision + 1, **changes})
        self.leases[lease_id] = lease
        await self._publish(lease.user, "lease", lease.model_dump(mode="json"))
        return lease

    async def _publish(self, user: str, kind: str, data: dict[str, Any]) -> None:
        async with self._news:
            self._events.append((user, kind, json.dumps({"at": self._now().isoformat(), "data": data})))
            self._news.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the resources

    async def _answer(self, method: str, path: str, query: dict[str, str], user: str, body: Any) -> BaseModel:
        match method, path.strip("/").split("/"):
            case "GET", ["me"]:
                mine = [one for one in self.leases.values() if one.user == user]
                live = [one for one in mine if one.state is not LeaseState.ENDED]
                used = float(sum(one.gpus for one in live))
                quota = QuotaUse(name="gpus_at_once", used=used, allowed=float(self.gpus), unit="GPUs")
                policy = Policy(idle_after_seconds=600, warn_seconds=300, keep_minutes=30, keep_times=2)
                facts: dict[str, Any] = {"pools": self._pools(), "quotas": [quota], "policy": policy}
                return Me(user=user, admin=False, leases=live, **facts)
            case "GET", ["pools"]:
                return PoolList(pools=self._pools())
            case "POST", ["leases"]:
                return await self._request(LeaseRequest.model_validate(body), query.get("key"), user)
            case "GET", ["leases"]:
                mine = [one for one in self.leases.values() if one.user == user]
                shown = [one for one in mine if query.get("ended") or one.state is not LeaseState.ENDED]
                return LeaseList(leases=sorted(shown, key=lambda one: int(one.id, 16), reverse=True))
            case _, ["leases", lease_id, *rest]:
                lease = self.leases.get(lease_id)
                if lease is None or lease.user != user:
                    raise errors.NotFound("There is no such lease.")
                return await self._of_lease(method, lease, "/".join(rest), body)
        raise errors.NotFound("There is no such thing here.")

    async def _request(self, request: LeaseRequest, key: str | None, user: str) -> Lease:
        key = key or request.idempotency_key
        if key and (user, key) in self._by_key:
            return self.leases[self._by_key[user, key]]
        if request.pool not in (None, POOL):
            raise errors.UnknownPool(f"There is no pool {request.pool}.")
        if request.gpus < 1:
            raise errors.InvalidOption("Ask for one GPU or more.")
        if self.refuse is not None:
            raise self.refuse
        if request.gpus > self.gpus:
            used: dict[str, Any] = {"limit": "gpus_at_once", "used": 0, "allowed": self.gpus, "unit": "GPUs"}
            raise errors.LimitReached(f"You may use {self.gpus} GPU(s) at once.", **used)
        there = [one for one in self.leases.values() if (one.user, one.server) == (user, request.server)]
        live = [one for one in there if one.state not in (LeaseState.ENDING, LeaseState.ENDED)]
        if live:
            return live[0]
        facts: dict[str, Any] = {"user": user, "server": request.server, "pool": POOL, "gpus": request.gpus}
        number = f"{next(self._numbers):08x}"
        lease = Lease(id=number, revision=0, state=LeaseState.QUEUED, created_at=self._now(), **facts)
        self.leases[lease.id] = lease
        if key:
            self._by_key[user, key] = lease.id
        if request.public_key:
            self._public_keys[lease.id] = request.public_key
        await self._change(lease.id)
        await self._schedule()
        return self.leases[lease.id]

    async def _of_lease(self, method: str, lease: Lease, what: str, body: Any) -> BaseModel:
        match method, what:
            case "GET", "":
                return lease
            case "GET", "usage":
                return UsageSeries(times=[], utilisation_percent=[], memory_bytes=[])
            case "PUT", "key":
                self._public_keys[lease.id] = LinkKey.model_validate(body).public_key
                return await self._change(lease.id, needs_key=False)
            case "PUT", "cell":
                self.running_cells[lease.id] = CellHint.model_validate(body).running
                return lease
            case "POST", "keep":
                if lease.state is not LeaseState.ACTIVE:
                    raise errors.LeaseOver("This lease has ended or is ending.")
                if lease.warning is not None and lease.warning.keep.times_left < 1:
                    raise errors.KeepUsedUp("This GPU cannot be kept any further.")
                return await self._change(lease.id, warning=None)
            case "DELETE", "":
                queued = lease.state is LeaseState.QUEUED
                return await self.end(lease.id, EndReason.CANCELLED if queued else EndReason.RELEASED)
            case "POST", "ack":
                done = self.acknowledged[lease.id] = Acknowledge.model_validate(body)
                if lease.state is LeaseState.ENDING or done.reason is not None:
                    why = EndReason(done.reason) if done.reason and not lease.reason else None
                    return await self.finish(lease.id, why)
                return lease
        raise errors.NotFound("There is no such thing here.")

    # --- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        length = int(headers.get("content-length", 0))
        raw = await reader.readexactly(length) if length <= MAX_BODY_BYTES else b""
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        query["key"] = headers.get("idempotency-key", "")
        try:
            if self.away:
                raise errors.Unavailable("The GPU service does not answer at the moment.")
            if length > MAX_BODY_BYTES:
                raise errors.TooLarge("The body is too large.")
            user = self.tokens.get(headers.get("authorization", "").removeprefix("Bearer "))
            if user is None:
                raise errors.NotSignedIn("The token is not known.")
            path = url.path.removeprefix(f"{PREFIX}/api/v1")
            if path == "/events":
                await self._stream(writer, user, headers.get("last-event-id"))
                return False
            answer = await self._answer(method, path, query, user, json.loads(raw or b"{}"))
            status, body = 200, answer.model_dump_json()
        except ValidationError as error:
            refused = errors.BadRequest(str(error.errors()[0]["msg"]))
            status, body = refused.status, json.dumps(refused.as_dict())
        except errors.GpuhubError as error:
            status, body = error.status, json.dumps(error.as_dict(), default=str)
        data = body.encode()
        start = (
            f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(start.encode() + data)
        await writer.drain()
        return length <= MAX_BODY_BYTES

    async def _stream(self, writer: asyncio.StreamWriter, user: str, last: str | None) -> None:
        start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hello\n\n"
        writer.write(start.encode())
        seen = len(self._events) if last is None else int(last)
        while not self.away and not writer.is_closing():
            for number, (owner, kind, data) in enumerate(self._events[seen:], seen + 1):
                if owner == user:
                    # Telemetry has no id: only the newest counts.
                    writer.write(encode(kind, data, None if kind == "usage" else number).encode())
            seen = len(self._events)
            await writer.drain()
            async with self._news:
                if seen == len(self._events):
                    await self._news.wait()
