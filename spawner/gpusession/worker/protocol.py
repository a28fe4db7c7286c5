"""What server and worker say to each other, and the SSH algorithms both insist on.

One SSH connection carries three things: the *conversation* (a session channel with the command
``talk``: JSON lines, below), the bytes of each program of ``gpu run`` (a session channel with the
command ``attach TARGET``), and the kernels' sockets (stream-local forwards). The worker trusts
nobody's JSON: an order is checked here, whole, before anything is done.

Server to worker, one line each, answered by ``{"id", "ok": {…}}`` or ``{"id", "error": {…}}`` (the wire
form of `gpulease.errors`) unless ``id`` is null: the orders below.

Worker to server, at any time: ``{"event": "hello", "kernels": [{"target", "kernel", "pid",
"channels", "parked"}]}`` first, then ``{"event": "ended", "target", "status"}`` as soon as a
process has ended (status negative: the signal).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from gpulease.errors import BadRequest, InvalidOption
from gpulease.models import Incoming

USER = "gpuhub"
"""The name that both sides say to SSH; the key alone decides."""

ALGORITHMS: dict[str, Any] = {
    # asyncssh's own first choice, chacha20, carried half to three quarters as much.
    "encryption_algs": ["aes256-gcm@openssh.com"],
    "kex_algs": ["curve25519-sha256"],
    "signature_algs": ["ssh-ed25519"],
    "compression_algs": ["none"],
}
KEEPALIVE: dict[str, Any] = {"keepalive_interval": 3, "keepalive_count_max": 3}
PING_SECONDS = 2.0
"""How often the server says that it is there: the worker counts its fence from the last word."""

MAX_LINE_BYTES = 4 * 1024 * 1024
"""No order is longer: the kernel would refuse such an environment anyway."""

TALK = "talk"
ATTACH = "attach"

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Target = Annotated[str, StringConstraints(pattern=r"^[kc][0-9]{1,12}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+$", max_length=1024)]


class Order(Incoming):
    id: int | None = None


class Program(Order):
    argv: list[Text] = Field(min_length=1, max_length=10_000)
    env: dict[EnvName, Text] = Field(max_length=10_000)
    cwd: Text = Field(max_length=4096)


class StartKernel(Program):
    op: Literal["start-kernel"] = "start-kernel"
    kernel: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
    key: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){1,256}$")]
    name: Text = Field("", max_length=256)


class TerminalSize(Incoming):
    columns: int = Field(80, ge=1, le=65535)
    rows: int = Field(24, ge=1, le=65535)


class TerminalKind(TerminalSize):
    kind: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+-]{1,64}$")] = "xterm-256color"


class Run(Program):
    op: Literal["run"] = "run"
    terminal: TerminalKind | None = None
    keep: bool = False


class AdoptKernel(Order):
    op: Literal["adopt-kernel"] = "adopt-kernel"
    target: Target


class Signal(Order):
    op: Literal["signal"] = "signal"
    target: Target
    number: int = Field(ge=1, le=64)


class Kill(Order):
    op: Literal["kill"] = "kill"
    target: Target


class Resize(Order):
    op: Literal["resize"] = "resize"
    target: Target
    size: TerminalSize


class Ping(Order):
    op: Literal["ping"] = "ping"


AnyOrder = Annotated[
    StartKernel | Run | AdoptKernel | Signal | Kill | Resize | Ping, Field(discriminator="op")
]
_ORDERS: TypeAdapter[Any] = TypeAdapter(AnyOrder)


def read_order(line: bytes) -> Any:
    """Return the order in ``line``. Raises BadRequest with ``id`` in its details where it could be read."""
    try:
        return _ORDERS.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        found = re.match(rb'\s*\{\s*"id"\s*:\s*([0-9]{1,15})\s*,', line)
        refusal = InvalidOption if first["loc"][1:] else BadRequest
        raise refusal(
            f"The worker did not understand the order: {where or 'it'}: {first['msg']}.",
            id=int(found[1]) if found else None,
        ) from None


@dataclass(frozen=True)
class UnixAddress:
    path: str


@dataclass(frozen=True)
class TcpAddress:
    host: str
    port: int


def read_address(text: str) -> UnixAddress | TcpAddress:
    """Read ``unix:/path`` or ``tcp:host:port`` (``tcp:[::1]:22`` too). Raises InvalidOption."""
    if text.startswith("unix:/") and "\0" not in text:
        return UnixAddress(text.removeprefix("unix:"))
    found = re.fullmatch(r"tcp:(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if found and int(found[3]) < 65536:
        return TcpAddress(found[1] or found[2], int(found[3]))
    raise InvalidOption(f"This is no address of a worker: {text!r}.")
