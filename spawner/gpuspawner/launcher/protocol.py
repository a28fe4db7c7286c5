"""What may be asked of the launcher, and nothing else.

The launcher may run as root, and the hub and the broker that talk to it need not. So this file is
a border: every field of a request is bounded, unknown fields are refused, names are slugs, nothing
holds a NUL, and there is no field that could name a program. One JSON object a line each way over
a Unix socket; an answer is ``{"ok": true, "result": …}`` or ``{"ok": false, "error": ErrorBody}``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, field_validator

MAX_REQUEST_BYTES = 1024 * 1024
"""One request line, at most: an order with a full environment is far smaller."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""What a client reads at most: a list of some thousand units."""

MAX_ENV_TOTAL_BYTES = 256 * 1024
MAX_GRACE_SECONDS = 24 * 3600.0

MARKER = "GPUHUB_UNIT"
"""The environment variable that names the unit in each of its processes. Only the launcher sets it."""
RUN_MARKER = "GPUHUB_UNIT_RUN"
"""Beside it, a random word of this very start: a gpuhub that is run inside another gpuhub's unit may
use the same unit names, and must not take the outer one's processes for its own."""

UnitId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
# 128 KiB is the kernel's limit for one string of an environment or a command line.
Text = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]
AbsolutePath = Annotated[str, StringConstraints(max_length=4096, pattern=r"^/[^\x00\n]*$")]
PersonName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f/]+$")]
UnitKind = Literal["server", "worker"]
GraceSeconds = Annotated[float, Field(ge=0, le=MAX_GRACE_SECONDS, allow_inf_nan=False)]


class Strict(BaseModel):
    """A body that crosses the border: unknown fields and converted types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Account(Strict):
    """The Unix account under which a unit runs."""

    uid: int = Field(ge=0, lt=2**31)
    gid: int = Field(ge=0, lt=2**31)
    name: PersonName
    home: AbsolutePath


class UnitOrder(Strict):
    """Everything that starts a unit. The command itself follows from ``kind`` and ``prefix``."""

    kind: UnitKind
    id: UnitId
    account: Account | None = Field(None, description="None: the launcher's own account.")
    prefix: AbsolutePath = Field(description="A registered Python prefix.")
    args: list[Text] = Field(default_factory=list, max_length=256, description="After the fixed command.")
    env: dict[EnvName, Text] = Field(default_factory=dict, max_length=512)
    devices: Annotated[tuple[DeviceId, ...], Field(max_length=64, strict=False)] = ()
    files: dict[FileName, Text] = Field(
        default_factory=dict, max_length=16, repr=False, description="Written 0600 into the unit's folder."
    )
    grace_seconds: GraceSeconds = Field(60.0, description="Used where a stop names none of its own.")
    label: Annotated[str, StringConstraints(max_length=256, pattern=r"^[\x20-\x7e]*$")] = Field(
        "", description="The caller's own note (a lease id); comes back with every sight of the unit."
    )

    @field_validator("env")
    @classmethod
    def _bounded(cls, env: dict[str, str]) -> dict[str, str]:
        if MARKER in env or RUN_MARKER in env:
            raise ValueError(f"{MARKER} and {RUN_MARKER} are set by the launcher alone")
        total = sum(len(name) + len(value.encode("utf-8", "surrogatepass")) for name, value in env.items())
        if total > MAX_ENV_TOTAL_BYTES:
            raise ValueError(f"the environment has {total} bytes, {MAX_ENV_TOTAL_BYTES} are allowed")
        return env


class Out(BaseModel):
    """What the launcher says: readers of an older version ignore what they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ProcessSeen(Out):
    """One process of a unit."""

    pid: int
    name: str
    cpu_seconds: float = Field(description="Its own user and system time since it started.")
    rss_bytes: int
    main: bool = Field(False, description="The unit's main process: the worker or server itself.")


class UnitSeen(Out):
    """A unit as it is now."""

    id: str
    kind: UnitKind
    pid: int | None = Field(None, description="Of the main process, as long as it lives.")
    phase: Literal["running", "exited"] = Field(
        description="exited: not one of its processes exists, and its devices are closed."
    )
    stopping: bool = Field(False, description="It was told to stop, or its main process has ended.")
    exit_status: int | None = Field(
        None, description="Of the main process; minus the signal's number. None: not (or never) known."
    )
    message: str = Field("", description="Why it could not start, one sentence.")
    started_at: float = Field(description="UNIX seconds.")
    folder: str
    label: str = ""
    prefix: str = ""
    account: Account | None = None
    ready: dict[str, Any] | None = Field(None, description="ready.json of its folder: a hint by its user.")
    processes: tuple[ProcessSeen, ...] = ()
    devices: tuple[str, ...] = ()
    log_tail: str = ""


class Start(Strict):
    op: Literal["start"] = "start"
    order: UnitOrder


class Stop(Strict):
    op: Literal["stop"] = "stop"
    id: UnitId
    grace_seconds: GraceSeconds | None = None


class List(Strict):
    op: Literal["list"] = "list"
    processes: bool = Field(True, description="False: leave out processes and log tails (cheaper).")


class Forget(Strict):
    op: Literal["forget"] = "forget"
    id: UnitId


class WriteFile(Strict):
    op: Literal["write_file"] = "write_file"
    id: UnitId
    name: FileName
    text: Text = Field(repr=False)


class Authenticate(Strict):
    op: Literal["authenticate"] = "authenticate"
    user: PersonName
    password: Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00\n]*$")] = Field(repr=False)


class Shutdown(Strict):
    """End the launcher itself. Units go on; the next launcher finds them."""

    op: Literal["shutdown"] = "shutdown"


Request = Annotated[
    Start | Stop | List | Forget | WriteFile | Authenticate | Shutdown, Field(discriminator="op")
]
REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
UNITS: TypeAdapter[list[UnitSeen]] = TypeAdapter(list[UnitSeen])
