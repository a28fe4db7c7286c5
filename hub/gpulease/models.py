"""What the broker says and hears: pools, leases, positions, quotas.

All times are timezone-aware UTC. Units are in the names. Bodies that come *in* refuse unknown
fields (`Incoming`); bodies that go *out* may grow, and readers ignore what they do not know.
What a server says to its browser is in `gpulease.session`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gpulease.states import EndReason, LeaseState

MAX_BODY_BYTES = 64 * 1024
"""No request body of the broker's or server's interface is larger; a larger one is refused (413)."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
IdempotencyKey = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
ServerName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f/]*$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]{68}( [ -~]{0,100})?$")]


class Incoming(BaseModel):
    """A body that somebody sends us: unknown fields are errors, not noise."""

    model_config = ConfigDict(extra="forbid")


class Outgoing(BaseModel):
    """A body that we send: readers of an older version ignore what they do not know.

    What we send is complete, so that the interface's description calls each field present.
    """

    model_config = ConfigDict(extra="ignore", json_schema_serialization_defaults_required=True)


# --- pools -----------------------------------------------------------------------------------


class Pool(Outgoing):
    """A kind of GPU on offer, as one person sees it now."""

    name: str
    title: str = Field(description="What people read: 'NVIDIA H100', 'simulated GPU'.")
    memory_bytes: int = Field(description="Memory of one GPU, bytes.")
    sharing: Literal["exclusive"] = "exclusive"
    simulated: bool = False
    total: int = Field(description="GPUs that work now.")
    free: int
    waiting: int = Field(description="Leases in the queue of this pool.")


class Device(Outgoing):
    """One GPU of a lease."""

    id: str = Field(description="The driver's UUID, or SIM-n for a simulated GPU.")
    index: int
    name: str = Field(description="Model name; contains 'simulated' for a simulated GPU.")
    memory_bytes: int
    simulated: bool = False


# --- leases ----------------------------------------------------------------------------------


class LeaseRequest(Incoming):
    """Ask for GPUs. A lease that already serves this server and pool is answered as it is."""

    pool: Name | None = Field(None, description="Which pool; none takes the first that one may use.")
    gpus: int = Field(1, description="How many GPUs, 1 or more.")
    server: ServerName = Field("", description="Name of the owner's server; '' is the default one.")
    public_key: PublicKey | None = Field(
        None, description="The server's public key for this lease's link. It can follow later (PUT key)."
    )
    idempotency_key: IdempotencyKey | None = Field(
        None, description="As the header Idempotency-Key, for clients that cannot set headers."
    )


class LinkKey(Incoming):
    """The public half of the key pair that the server made for this lease."""

    public_key: PublicKey


class Position(Outgoing):
    """Where a queued lease stands."""

    place: int = Field(description="1 is next.")
    ahead: int = Field(description="Leases in front of this one.")
    waiting_for: Literal["gpu", "quota", "pool"] = Field(
        description="gpu: all are in use; quota: the owner's own limit; pool: none of it works now."
    )
    message: str = Field(description="One sentence: what it waits for.")
    estimated_start: datetime | None = Field(None, description="None when nothing can be said.")


class Link(Outgoing):
    """How the owner's server reaches the worker by SSH, and how it knows that it is the right one."""

    address: str = Field(description="unix:/path/to/socket or tcp:host:port")
    host_key: str = Field(description="The worker's public host key, OpenSSH form. Nothing else is accepted.")


class Keep(Outgoing):
    """What is left of the right to say 'I am still thinking'."""

    minutes: int
    times_left: int


class Warn(Outgoing):
    """Said before something is taken."""

    reason: EndReason
    at: datetime = Field(description="When it will be taken if nothing changes.")
    message: str
    keep: Keep
    resident_bytes: int | None = Field(None, description="GPU memory still held by silent processes.")


class Ending(Outgoing):
    """A lease that is on its way out."""

    reason: EndReason
    deadline: datetime = Field(description="When the worker is stopped at the latest.")
    message: str


class Usage(Outgoing):
    """The last telemetry of a lease's GPUs. None where nothing is known."""

    at: datetime
    utilisation_percent: float
    memory_bytes: int
    memory_total_bytes: int
    simulated: bool = False
    processes: list[ProcessUse] = Field(default_factory=list)


class ProcessUse(Outgoing):
    """One process on the lease's GPUs."""

    pid: int
    name: str
    memory_bytes: int


class Lease(Outgoing):
    """One person's right to GPUs of one pool, from request to end."""

    id: str
    revision: int = Field(description="Grows with every change; the newest wins.")
    user: str
    server: str
    pool: str
    gpus: int
    priority: str = "normal"
    state: LeaseState
    reason: EndReason | None = Field(None, description="Why it ends or has ended.")
    message: str = Field("", description="One sentence about the present state.")
    created_at: datetime
    granted_at: datetime | None = None
    active_at: datetime | None = None
    ends_at: datetime | None = Field(None, description="The latest end, by the longest lease allowed.")
    ended_at: datetime | None = None
    position: Position | None = None
    devices: list[Device] = Field(default_factory=list)
    link: Link | None = Field(None, description="Shown to the owner's server only, once active.")
    needs_key: bool = Field(False, description="Granted, and waiting for the server's public key.")
    warning: Warn | None = None
    ending: Ending | None = None
    usage: Usage | None = None
    idle_seconds: float | None = Field(None, description="Silence of the GPUs so far. None: not known.")


class CellHint(Incoming):
    """Whether a cell runs on the worker: the server says so every half minute while one does.

    A hint: it keeps a silent GPU from being taken in the middle of a cell while nobody waits for it
    (and for `busy_cell_grace_minutes` when somebody does), nothing more.
    """

    running: bool


class KernelReturn(Incoming):
    """How one kernel came back from the worker."""

    kernel: str = Field(max_length=64)
    notebook: str = Field("", max_length=4096)
    outcome: Literal["moved", "saved", "lost", "stopped"]
    bytes: int = Field(0, ge=0)
    kept: int = Field(0, ge=0)
    left: int = Field(0, ge=0)


class Acknowledge(Incoming):
    """The server's word that everything worth saving has left the worker.

    A hint, never a fact for limits or misuse: it lets the broker stop the worker before the
    deadline, nothing more.
    """

    kernels: list[KernelReturn] = Field(default_factory=list, max_length=1000)
    reason: Literal["released", "server-stopped"] | None = Field(
        None, description="Set to end a lease that is not yet ending: the server is going away."
    )


# --- people ----------------------------------------------------------------------------------


class QuotaUse(Outgoing):
    """One limit, how much of it is used, and when it frees up."""

    name: Literal["gpus_at_once", "gpu_hours_per_week", "longest_lease_hours"]
    used: float | None = None
    allowed: float | None = Field(description="None: no limit.")
    unit: str
    frees_at: datetime | None = None


class Policy(Outgoing):
    """The times that the owner should know."""

    idle_after_seconds: int
    warn_seconds: int
    keep_minutes: int
    keep_times: int
    automatic_save_seconds: int = Field(default=300, description="0: notebooks are not saved automatically.")
    automatic_save_work_seconds: int = 10


class Me(Outgoing):
    """The person behind the token."""

    user: str
    admin: bool
    groups: list[str] = Field(default_factory=list)
    pools: list[Pool]
    quotas: list[QuotaUse]
    leases: list[Lease] = Field(description="Those that have not ended.")
    policy: Policy


class LeaseList(Outgoing):
    """Newest first. ``next`` is the id to pass as ``before`` for the following page."""

    leases: list[Lease]
    next: str | None = None


class PoolList(Outgoing):
    pools: list[Pool]


class ErrorBody(Outgoing):
    """Every refusal has this form."""

    code: str
    message: str
    hint: str
    details: dict[str, Any] = Field(default_factory=dict)


class UsageSeries(Outgoing):
    """Samples of a lease, oldest first: parallel lists. Times are UNIX seconds."""

    times: list[float]
    utilisation_percent: list[float]
    memory_bytes: list[int]


Usage.model_rebuild()
