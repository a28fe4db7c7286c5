"""The seams inside a session: who starts kernels, who carries messages, who moves them.

Three parts meet here and know each other only through these shapes:

* a `Place` starts kernel processes (on this machine, or through the link on the worker);
* the relay (`kernels.relay`) owns a kernel's address for its whole life and points at one
  `RunningKernel` at a time;
* the move (`kernels.move`) is the protocol between them and knows no transport.

All coroutines run on the session's own event loop (a thread of its own), never on the
Jupyter server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from gpulease.session import Placement

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


@dataclass(frozen=True)
class KernelCommand:
    """How to start one kernel process, wherever that is."""

    kernel_id: str
    argv: tuple[str, ...]
    """With ``{connection_file}`` still in it: the place makes the file."""
    env: Mapping[str, str]
    cwd: str
    key: bytes
    """The HMAC key of the kernel's messages: the same one for its whole life."""
    language: str = "python"
    agent: bool = True
    """Our agent will be inside. A Python without it (a foreign environment) starts anew when it moves."""
    transport: Literal["ipc", "tcp"] = "ipc"
    """tcp: a kernel that cannot listen on Unix sockets. It runs beside the server only."""
    open_ports: bool = False
    """Its kernel spec says that other accounts of the machine may read what it prints."""


class RunningKernel(Protocol):
    """One kernel process."""

    @property
    def placement(self) -> Placement: ...

    @property
    def channels(self) -> Mapping[str, str]:
        """ZeroMQ addresses (``ipc://…``) that can be connected to from this machine, by channel."""

    @property
    def exited(self) -> asyncio.Future[int]:
        """Done with the exit status (negative: the signal) as soon as the process has ended.

        For a lost link the status is `LINK_LOST`.
        """

    @property
    def pid(self) -> int | None: ...

    async def signal(self, signum: int) -> None:
        """Send a signal. SIGSTOP and SIGCONT park and wake it. A process that has ended is fine."""

    async def kill(self) -> None:
        """End it now, with its children, and wait until it is gone. Idempotent."""


LINK_LOST = -1000
"""The exit status of a kernel whose worker cannot be reached any more."""


class Place(Protocol):
    """Somewhere kernels can run."""

    @property
    def placement(self) -> Placement: ...

    async def start_kernel(self, command: KernelCommand) -> RunningKernel:
        """Start a kernel process. Its channels are bound or will be: the relay proves them live.

        Raises LinkLost, Unavailable, InvalidOption (the command cannot be run there).
        """


class AgentError(Exception):
    """The agent in the kernel refused or failed. ``code`` is one of gpulease.errors' codes.

    ``hint``: what the person may do; None: nothing was said.
    """

    def __init__(
        self, code: str, message: str, details: dict[str, Any] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.hint = hint


Progress = Callable[[int, int | None], None]
"""Called with (bytes done, bytes in all or None)."""


class Agent(Protocol):
    """The way to the in-kernel agent (`gpusession.state.agent`) of one running kernel.

    A request is a message of type ``gpuhub_request`` with content ``{"op": …, …}``; the reply is
    a ``gpuhub_reply`` with ``{"status": "ok", …}`` or ``{"status": "error", "code", "message",
    "details", "hint"}``. Between them the kernel may publish ``gpuhub_progress`` on iopub with
    ``{"done": int, "total": int | None}``. The relay keeps all three away from browsers.

    ops on the shell channel (main thread; only while nothing runs):
        check  {}                                       -> {"verdicts": […], "bytes": int}
        save   {"folder", "meta", "accept": "all" | "none" | [names]}
                                                        -> {"snapshot": id, "bytes": int, "verdicts": […]}
        load   {"folder", "names": [...] | None}        -> {"verdicts": […]}
        automatic {"folder", "meta", "fork": bool}      -> {"forked": True, "snapshot": id}: a copy saves now
                                                           {"forked": False, "why"}: it cannot; use save
        prepare {"modules": [...]}                      -> {"failed": {module: reason}}
        rebuild {"names": [...] | None, "cells": [int]} -> `gpulease.session.RebuildResult`
    ops on the control channel (any time):
        modules {}                                      -> {"modules": [...]}
        background {}                                   -> {"running": bool, "outcome": {"status", …} | None}
        plan   {"names": [...] | None}                  -> `gpulease.session.RebuildPlan`
        ping    {}                                      -> {"agent": version, "python": "3.11.7"}
    """

    async def request(
        self,
        op: str,
        content: Mapping[str, Any] | None = None,
        *,
        channel: str = "shell",
        timeout_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Send and wait. Raises AgentError, or TimeoutError."""


class Endpoint(Protocol):
    """The relay's side of one kernel: the address that clients know, pointing at one kernel process.

    All calls come from the session's loop; the relay's own thread is its own business.
    """

    @property
    def kernel_id(self) -> str: ...

    @property
    def running(self) -> RunningKernel | None:
        """The process that answers now."""

    on_work: Callable[[], None]
    """Called when `in_flight` becomes None or ceases to be, and when `waits_for_input` changes."""

    @property
    def in_flight(self) -> str | None:
        """The code of the cell that runs now ("" for another request), or None."""

    @property
    def waits_for_input(self) -> bool:
        """The running cell asked a question (``input()``) that nobody has answered yet."""

    @property
    def succeeded(self) -> int:
        """How many cells the present process has finished with status ok."""

    @property
    def finished(self) -> int:
        """How many cells have ended, in whatever way, in all processes of this kernel."""

    @property
    def waiting(self) -> int:
        """How many requests of clients wait for the kernel."""

    @property
    def agent(self) -> Agent:
        """The agent of the process that answers now. Its requests pass a hold."""

    async def prove(self, candidate: RunningKernel, timeout_seconds: float) -> Agent:
        """Connect to a process beside the present one; return its agent once reply *and* idle came.

        Raises TimeoutError, Unavailable (it ended meanwhile).
        """

    async def discard(self, candidate: RunningKernel) -> None:
        """Forget a candidate (its connections). Killing it is the caller's business."""

    async def hold(self) -> None:
        """Stop admitting shell requests. Control, stdin and heartbeat go on. Idempotent."""

    async def drain(self, timeout_seconds: float | None = None) -> None:
        """Wait until everything admitted has its reply and its idle. Raises TimeoutError."""

    async def release(self) -> None:
        """Admit again, in order. Idempotent."""

    async def switch(self, candidate: RunningKernel) -> RunningKernel | None:
        """Point at the proven candidate; return the process that answered until now. Does not release."""

    async def fail_in_flight(self, ename: str, evalue: str) -> str | None:
        """Answer what runs with an error (reply, error output, idle); returns its code, None: nothing ran."""

    async def abort_held(self) -> int:
        """Answer every waiting request ``aborted``; returns how many."""


@dataclass(frozen=True)
class Terminal:
    """The terminal that a command on the worker gets."""

    kind: str = "xterm-256color"
    columns: int = 80
    rows: int = 24


class RemoteCommand(Protocol):
    """A program on the worker (``gpu run``, ``gpu shell``)."""

    @property
    def exited(self) -> asyncio.Future[int]:
        """Done with the exit status (negative: the signal; `LINK_LOST`: the link was cut)."""

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while it does not read."""

    async def write_eof(self) -> None: ...

    async def read(self, stream: Literal["stdout", "stderr"]) -> bytes:
        """Return what came, at least one byte; b"" at the end. With a terminal all is stdout."""

    async def signal(self, signum: int) -> None:
        """Signal the program's whole process group."""

    def resize(self, columns: int, rows: int) -> None: ...

    async def kill(self) -> None:
        """End it now, with its children."""

    def detach(self) -> None:
        """Leave a program that was started with ``keep`` to itself: nobody reads it any more."""


class WorkerLink(Protocol):
    """The one connection to a lease's worker (`gpusession.worker.link`)."""

    @property
    def place(self) -> Place: ...

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        terminal: Terminal | None = None,
        keep: bool = False,
    ) -> RemoteCommand:
        """Start a program there. Raises LinkLost, InvalidOption.

        ``keep``: it survives the loss of the link.
        """

    @property
    def lost(self) -> asyncio.Future[str]:
        """Done with the reason once the connection is gone for good."""

    async def close(self) -> None: ...


Cause = Literal["start", "restart", "crash"]
"""Why a kernel process was started: a new kernel, the person's restart, or the old one died."""


class KernelHost(Protocol):
    """What the provisioner asks of the session (`gpusession.session`), on the session's loop.

    `settling` may also be asked from other threads.
    """

    snapshots: Path
    """Where kernels save themselves."""
    alone: bool
    """No other account reaches this machine's loopback: a pod's own network, say."""

    def place_for(self, kernel_id: str) -> Place:
        """Where this kernel starts or restarts: where it is now; a new one on the server."""

    def settling(self, kernel_id: str) -> bool:
        """A move or a recovery is under way: whatever happened to the process, `poll` says alive."""

    def stopping(self, kernel_id: str) -> None:
        """The person shuts it down or restarts it: the coming end of its process is no crash."""

    async def launched(self, endpoint: Endpoint, command: KernelCommand, cause: Cause) -> None:
        """A process was started and answers. After a crash the last saved state is loaded here."""

    async def closed(self, kernel_id: str) -> None:
        """The kernel is shut down for good: ends its move and what is parked."""
