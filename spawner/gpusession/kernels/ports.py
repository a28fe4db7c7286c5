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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

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
    """The agent in the kernel refused or failed. ``code`` is one of gpulease.errors' codes."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}


Progress = Callable[[int, int | None], None]
"""Called with (bytes done, bytes in all or None)."""


class Agent(Protocol):
    """The way to the in-kernel agent (`gpusession.state.agent`) of one running kernel.

    A request is a message of type ``gpuhub_request`` with content ``{"op": …, …}``; the reply is
    a ``gpuhub_reply`` with ``{"status": "ok", …}`` or ``{"status": "error", "code", "message",
    "details"}``. Between them the kernel may publish ``gpuhub_progress`` on iopub with
    ``{"done": int, "total": int | None}``. The relay keeps all three away from browsers.

    ops on the shell channel (main thread; only while nothing runs):
        check  {}                                       -> {"verdicts": […], "bytes": int}
        save   {"folder", "meta", "accept": "all" | "none" | [names]}
                                                        -> {"snapshot": id, "bytes": int, "verdicts": […]}
        load   {"folder", "names": [...] | None}        -> {"verdicts": […]}
        prepare {"modules": [...]}                      -> {"failed": {module: reason}}
    ops on the control channel (any time):
        modules {}                                      -> {"modules": [...]}
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
