"""The server's side of the one connection to a lease's worker.

Promises: nobody but the worker with the pinned host key is spoken to, and by no means but this
lease's key; a kernel's sockets there appear as sockets in a private folder here; whatever ends
there is known here at once, and when the connection is gone, everything there counts as lost.
Runs on the loop that called `connect`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from gpulease import errors
from gpulease.models import Link
from gpulease.session import Placement
from gpusession.kernels.launch import PATH_BYTES
from gpusession.kernels.ports import LINK_LOST, KernelCommand, Terminal
from gpusession.leases import KeyPair
from gpusession.worker.conversation import Conversation
from gpusession.worker.far import FarKernel, FarProgram
from gpusession.worker.protocol import (
    ALGORITHMS,
    ATTACH,
    KEEPALIVE,
    PING_SECONDS,
    TALK,
    USER,
    UnixAddress,
    read_address,
)
from gpusession.worker.sockets import connected

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15.0
CLOSE_SECONDS = 2.0
LONGEST_BELOW = len("/wabcdefgh/k999999-control")


def make_key() -> KeyPair:
    """Make an ed25519 pair for one lease."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return KeyPair(
        private=key.export_private_key("openssh").decode(),
        public=key.export_public_key("openssh").decode().strip(),
    )


async def connect(
    link: Link, key: KeyPair, *, runtime: Path, timeout_seconds: float = CONNECT_SECONDS
) -> WorkerConnection:
    """Open the one connection. Raises LinkLost.

    ``runtime``: a folder (0700) for the sockets of the worker's kernels.
    """
    folder = _make_folder(runtime)
    connection = WorkerConnection(folder)
    try:
        async with asyncio.timeout(timeout_seconds):
            await connection.open(link, key)
    except BaseException as error:
        await connection.close()
        raise _refusal(error) from error
    return connection


def _make_folder(runtime: Path) -> Path:
    short = len(os.fsencode(runtime)) + LONGEST_BELOW <= PATH_BYTES
    return Path(tempfile.mkdtemp(prefix="w" if short else "gpuhub-", dir=runtime if short else None))


def _refusal(error: BaseException) -> BaseException:
    match error:
        case errors.LinkLost():
            return error
        case asyncssh.HostKeyNotVerifiable():
            text = "Something else than the granted worker answered at its address."
        case asyncssh.PermissionDenied():
            text = "The worker does not know this server's key yet."
        case TimeoutError():
            text = "The worker does not answer."
        case errors.GpuhubError() | OSError() | asyncssh.Error() | asyncssh.KeyImportError() | ValueError():
            text = f"The worker cannot be reached: {error}."
        case _:
            return error
    return errors.LinkLost(text)


class WorkerConnection:
    """The `WorkerLink`; also its own `Place`."""

    placement: Placement = "worker"

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._folder = folder
        self._connection: asyncssh.SSHClientConnection | None = None
        self._talk: Conversation | None = None
        self._kernels: dict[str, FarKernel] = {}
        self._programs: dict[str, FarProgram] = {}
        self._early: dict[str, int] = {}
        """Ends that were told before the answer that names the process."""
        self._pinging: asyncio.Task[None] | None = None

    @property
    def place(self) -> WorkerConnection:
        return self

    @property
    def kernels(self) -> Mapping[str, FarKernel]:
        """What runs there, by kernel id; of several processes for one kernel the newest not parked.

        Those that an earlier connection left stay fenced until `adopt_kernel`.
        """
        found = sorted(self._kernels.values(), key=lambda one: (not one.parked, int(one.target[1:])))
        return {one.kernel_id: one for one in found}

    # --- opening and losing

    async def open(self, link: Link, key: KeyPair) -> None:
        address = read_address(link.address)
        where: dict[str, Any]
        if isinstance(address, UnixAddress):
            where = {"host": "", "sock": await connected(Path(address.path))}
        else:
            where = {"host": address.host, "port": address.port}
        self._connection = await asyncssh.connect(
            **where,
            client_factory=lambda: _Watch(self),
            config=None,
            known_hosts=([asyncssh.import_public_key(link.host_key)], [], []),
            server_host_key_algs=["ssh-ed25519"],
            username=USER,
            client_keys=[asyncssh.import_private_key(key.private)],
            agent_path=None,
            public_key_auth=True,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_kex=False,
            gss_auth=False,
            preferred_auth=["publickey"],
            **ALGORITHMS,
            **KEEPALIVE,
        )
        talk = self._talk = Conversation(self._event)
        await self._connection.create_session(lambda: talk, TALK, encoding=None, request_pty=False)
        hello = await talk.hello
        for found in hello["kernels"]:
            await self._far_kernel(found)
        self._pinging = self._loop.create_task(self._ping())

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            self.tell("ping")

    def gone(self, error: Exception | None) -> None:
        """The connection has ended; called once by SSH, at any moment."""
        if self.lost.done():
            return
        self.lost.set_result(str(error) if error else "The worker closed the connection.")
        if self._pinging is not None:
            self._pinging.cancel()
        if self._talk is not None:
            self._talk.fail(errors.LinkLost("The worker cannot be reached any more."))
        for one in [*self._kernels.values(), *self._programs.values()]:
            one.ended(LINK_LOST)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def close(self) -> None:
        """End the connection; the worker's fence runs from now. Idempotent."""
        connection = self._connection
        if connection is not None:
            connection.close()
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await connection.wait_closed()
            except TimeoutError:
                connection.abort()
        self.gone(None)

    # --- the conversation

    async def ask(self, op: str, **content: Any) -> dict[str, Any]:
        """Give an order and wait for its answer. Raises LinkLost, or what the worker refused with."""
        if self._talk is None or self.lost.done():
            raise errors.LinkLost("The worker cannot be reached any more.")
        return await self._talk.ask({"op": op, **content})

    def tell(self, op: str, **content: Any) -> None:
        """Give an order whose answer does not matter."""
        if self._talk is not None and not self.lost.done():
            self._talk.tell({"op": op, **content})

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("event") != "ended":
            return
        target, status = str(event["target"]), int(event["status"])
        known = self._kernels.pop(target, None) or self._programs.pop(target, None)
        if known is None:
            self._early[target] = status
        else:
            known.ended(status)

    # --- Place

    async def start_kernel(self, command: KernelCommand) -> FarKernel:
        """Start a kernel on the worker. Raises LinkLost, InvalidOption, Unavailable."""
        answer = await self.ask(
            "start-kernel",
            kernel=command.kernel_id,
            argv=_texts(command.argv),
            env=_environment(command.env),
            cwd=_texts([command.cwd])[0],
            key=command.key.hex(),
            name=command.env.get("GPUHUB_KERNEL_NAME", "") or command.language,
        )
        return await self._far_kernel(answer)

    async def adopt_kernel(self, kernel_id: str) -> FarKernel:
        """Take over a kernel that an earlier connection left: its fence is lifted.

        Raises NotFound, Conflict (it is ending already), LinkLost.
        """
        kernel = self.kernels.get(kernel_id)
        if kernel is None:
            raise errors.NotFound("This kernel is not on the worker any more.")
        await self.ask("adopt-kernel", target=kernel.target)
        return kernel

    async def _far_kernel(self, shown: Mapping[str, Any]) -> FarKernel:
        kernel = FarKernel(self, shown, self._folder)
        self._kernels[kernel.target] = kernel
        try:
            assert self._connection is not None
            for channel in kernel.channels:
                here, there = str(kernel.path(channel)), str(shown["channels"][channel])
                kernel.listeners.append(await self._connection.forward_local_path(here, there))
        except (OSError, asyncssh.Error) as error:
            raise errors.LinkLost(f"The kernel's sockets cannot be reached: {error}.") from error
        if kernel.target in self._early:
            self._kernels.pop(kernel.target, None)
            kernel.ended(self._early.pop(kernel.target))
        elif self.lost.done():
            kernel.ended(LINK_LOST)
        return kernel

    # --- programs

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        terminal: Terminal | None = None,
        keep: bool = False,
    ) -> FarProgram:
        """See `WorkerLink.run`."""
        if not argv:
            raise errors.InvalidOption("There is nothing to run.", hint="Name a program.")
        size = (
            {"kind": terminal.kind, "columns": terminal.columns, "rows": terminal.rows} if terminal else None
        )
        answer = await self.ask(
            "run",
            argv=_texts(argv),
            env=_environment(env),
            cwd=_texts([cwd])[0],
            terminal=size,
            keep=keep,
        )
        program = FarProgram(self, answer["target"], answer["pid"], terminal is not None)
        self._programs[program.target] = program
        if program.target in self._early:
            self._programs.pop(program.target, None)
            program.ended(self._early.pop(program.target))
        assert self._connection is not None
        try:
            streams = await self._connection.open_session(
                f"{ATTACH} {program.target}", encoding=None, request_pty=False
            )
        except (OSError, asyncssh.Error) as error:
            raise errors.LinkLost("The worker cannot be reached any more.") from error
        program.attached(*streams)
        return program

    async def forward_port(self, port: int) -> Path:
        """Return a socket here that leads to a loopback port there (TensorBoard). Raises LinkLost."""
        path = self._folder / f"p{port}"
        if not path.exists():
            if self._connection is None or self.lost.done():
                raise errors.LinkLost("The worker cannot be reached any more.")
            await self._connection.forward_local_path_to_port(str(path), "127.0.0.1", port)
        return path


def _texts(texts: Sequence[str]) -> list[str]:
    for text in texts:
        if "\0" in text or not _is_unicode(text):
            raise errors.InvalidOption("An argument or folder name has characters that cannot be passed on.")
    return list(texts)


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Leave out what is not text: one odd variable must not keep a kernel from starting."""
    return {name: value for name, value in env.items() if _is_unicode(name) and _is_unicode(value)}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Watch(asyncssh.SSHClient):
    """Tells the connection that it has ended."""

    def __init__(self, connection: WorkerConnection) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.gone(exc)
