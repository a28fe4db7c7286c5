"""Kernels that other programs of the server start, run by the server (see `standin`).

Exists so that they can move like any other, and show in the sidebar. Served on the private socket
only: who reaches that is the server's owner. Promises: such a kernel lives exactly as long as the
request that asked for it; its end is told as the last line of the answer; an address without
encryption is guarded against other accounts of the machine (`doorkeeper`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from typing import Any

import zmq
from pydantic import ConfigDict, Field, ValidationError
from tornado import web
from tornado.iostream import StreamClosedError

from gpulease import errors
from gpulease.models import Incoming
from gpusession.activity import Activity
from gpusession.api import PREFIX, Resource
from gpusession.kernels import argv as commandline
from gpusession.kernels import provisioner
from gpusession.kernels.autogpu import AutoGpu
from gpusession.kernels.doorkeeper import Doorkeeper
from gpusession.kernels.environment import for_cells
from gpusession.kernels.life import death, start
from gpusession.kernels.ports import KernelCommand
from gpusession.kernels.relay import Relay
from gpusession.kernels.sockets import Address
from gpusession.session import Session

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
ALIVE_SECONDS = 10.0


class Connection(Incoming):
    """A connection file, as Jupyter (or VS Code) writes it, with whatever else is in it."""

    model_config = ConfigDict(extra="ignore")

    ip: str
    transport: str = Field(pattern="^(tcp|ipc)$")
    key: str
    shell_port: int
    iopub_port: int
    stdin_port: int
    hb_port: int
    control_port: int
    kernel_name: str = ""
    curve_publickey: str | None = None
    curve_secretkey: str | None = None

    def address(self) -> Address:
        ports = {name: getattr(self, f"{name}_port") for name in ("shell", "iopub", "stdin", "hb", "control")}
        keys = None
        if self.curve_publickey and self.curve_secretkey:
            keys = self.curve_publickey.encode(), self.curve_secretkey.encode()
        return Address(self.ip, self.transport, ports, keys)


class Hosting(Incoming):
    """Start a kernel behind this address."""

    argv: list[str] = Field(min_length=1, max_length=1000)
    env: dict[str, str] = Field(max_length=10_000)
    cwd: str
    connection: Connection
    gpu: bool = False


async def _guarded(address: Address) -> tuple[Doorkeeper, Address]:
    """Return who stands at this address, and where to bind behind him."""
    try:
        door = Doorkeeper(address)
    except ValueError as error:
        raise errors.BadRequest(f"The kernel's address cannot be used: {error}.") from error
    try:
        await door.open()
    except OSError as error:
        await door.close()
        raise errors.Conflict(f"The kernel's address cannot be used: {error}.") from error
    return door, door.inside


class HostedKernels:
    """The relays of hosted kernels, by kernel id."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.relays: dict[str, Relay] = {}


class HostedResource(Resource):
    """POST: start one, and stay until it ends."""

    def initialize(self, session: Any, activity: Any, hosted: HostedKernels | None = None) -> None:
        super().initialize(session, activity)
        assert hosted is not None
        self.hosted = hosted
        self._gone = asyncio.Event()
        self._stopping = False

    async def post(self) -> None:
        try:
            await self._host(self.body(Hosting))
        except ValidationError as error:
            self._refuse(errors.BadRequest(f"This cannot be hosted: {error.errors()[0]['msg']}."))
        except TimeoutError:
            self._refuse(errors.Unavailable("The kernel did not answer in time."))
        except errors.GpuhubError as error:
            self._refuse(error)

    def _refuse(self, error: errors.GpuhubError) -> None:
        if self._headers_written:
            log.warning("a hosted kernel failed: %s", error.message)
            self.finish()
        else:
            self.refuse(error)

    async def _host(self, order: Hosting) -> None:
        kernel_id = self.session.make_id()
        argv, agent = await asyncio.to_thread(commandline.resolve, order.argv)
        key = order.connection.key.encode()
        env = {
            **for_cells(order.env, provisioner.NAME if agent else None),
            "GPUHUB_KERNEL_ID": kernel_id,
            "GPUHUB_KERNEL_NAME": order.connection.kernel_name,
            "GPUHUB_SNAPSHOTS": str(self.session.snapshots),
        }
        command = KernelCommand(kernel_id, argv, env, order.cwd, key, "python" if agent else "", agent)
        address, door = order.connection.address(), None
        if address.transport == "tcp" and address.curve is None and not self.session.alone:
            door, address = await _guarded(address)
        try:
            relay = Relay(
                kernel_id,
                address,
                key,
                make_id=self.session.make_id,
                has_agent=agent,
                alone=self.session.alone,
            )
        except zmq.ZMQError as error:
            if door is not None:
                await door.close()
            raise errors.Conflict(f"The kernel's address cannot be used: {error}.") from error
        self.hosted.relays[kernel_id] = relay
        relay.on_shutdown_asked = functools.partial(self._stop, kernel_id)
        auto = AutoGpu(relay, self.session) if order.gpu else None
        try:
            await start(relay, self.session, command, "start")
            if auto is not None:
                await auto.begin()
            await self._stay(relay, kernel_id)
        finally:
            del self.hosted.relays[kernel_id]
            if door is not None:
                await asyncio.shield(door.close())
            await asyncio.shield(self._end(relay, auto))

    async def _stay(self, relay: Relay, kernel_id: str) -> None:
        with contextlib.suppress(StreamClosedError):
            await self._tell(kernel=kernel_id)
            loop = asyncio.get_running_loop()
            spoken = loop.time()
            while not self._gone.is_set():
                status = await death(relay, self.session, stopping=self._stopping)
                if status is not None:
                    await self._tell(exited=status)
                    return
                if loop.time() - spoken > ALIVE_SECONDS:
                    spoken = loop.time()
                    await self._tell()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), LOOK_SECONDS)

    def _stop(self, kernel_id: str) -> None:
        self._stopping = True
        self.session.stopping(kernel_id)

    async def _tell(self, **event: Any) -> None:
        self.write(json.dumps(event) + "\n")
        await self.flush()

    async def _end(self, relay: Relay, auto: AutoGpu | None) -> None:
        self.session.stopping(relay.kernel_id)
        if auto is not None:
            await auto.end()
        if relay.running is not None:
            await relay.running.kill()
        await self.session.closed(relay.kernel_id)
        await relay.close()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._gone.set()


class InterruptResource(Resource):
    def initialize(self, session: Any, activity: Any, hosted: HostedKernels | None = None) -> None:
        super().initialize(session, activity)
        assert hosted is not None
        self.hosted = hosted

    async def post(self, kernel_id: str) -> None:
        relay = self.hosted.relays.get(kernel_id)
        if relay is None:
            self.refuse(errors.NotFound("This server hosts no such kernel."))
            return
        await relay.interrupt()
        self.answer(None)


def routes(
    session: Session, activity: Activity
) -> list[tuple[str, type[web.RequestHandler], dict[str, Any]]]:
    """Return the routes for the private socket, which is served on the session's own loop."""
    given = {"session": session, "activity": activity, "hosted": HostedKernels(session)}
    return [
        (f"/{PREFIX}/hosted", HostedResource, given),
        (f"/{PREFIX}/hosted/([^/]+)/interrupt", InterruptResource, given),
    ]
