"""What a person's server says to its browser, its terminal and scripts.

Served under ``/user/NAME/gpuhub/api/v1/``; the same objects travel over the server's private
socket to the ``gpu`` command.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from gpulease.models import Incoming, Lease, Name, Outgoing, Policy, Pool, QuotaUse

SnapshotId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]

Placement = Literal["server", "worker"]
VerdictKind = Literal["kept", "rebuilt", "left"]
MoveStep = Literal[
    "waiting",  # for a GPU: the lease is queued
    "starting",  # the worker, then the kernel on it
    "checking",  # dry run: would anything stay behind?
    "holding",  # waiting for the running cell
    "saving",
    "loading",
    "switching",
    "done",
    "failed",
    "cancelled",
    "refused",  # something would stay behind and nobody consented
]
SnapshotReason = Literal[
    "move", "release", "idle", "ending", "server-stop", "worker-stop", "manual", "automatic"
]


class Verdict(Outgoing):
    """What becomes of one variable."""

    name: str
    type: str = Field(description="Qualified type name, e.g. numpy.ndarray.")
    bytes: int | None = Field(None, description="Size when saved (or estimated); None: not known.")
    verdict: VerdictKind
    reason: str | None = Field(None, description="Why it is left or rebuilt.")
    hint: str | None = Field(None, description="How to get it back.")
    excluded: bool = Field(
        default=False, description="The person excluded it: it is left, and needs no consent."
    )

    @property
    def needs_consent(self) -> bool:
        """Somebody must agree that it stays behind."""
        return self.verdict == "left" and not self.excluded


class Move(Outgoing):
    """A kernel's move, running or just ended."""

    id: str
    kernel: str
    target: Placement
    step: MoveStep
    message: str = Field(description="One sentence for the person.")
    started_at: datetime
    ended_at: datetime | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    can_cancel: bool = True
    asked: bool = Field(True, description="False: the lease is ending, nobody at the keyboard asked.")
    verdicts: list[Verdict] = Field(default_factory=list)
    error: str | None = Field(None, description="The code of the error that failed the move.")
    hint: str | None = Field(None, description="What the person may do about a move that failed.")


class KernelNotice(Outgoing):
    """Something the person should be told about this kernel; stays until dismissed."""

    id: str
    kind: Literal["moved-back", "restored", "lost", "restore-offer", "cut"]
    at: datetime
    message: str
    snapshot: str | None = None
    verdicts: list[Verdict] = Field(default_factory=list)


class KernelStatus(Outgoing):
    """One kernel of this server."""

    id: str
    name: str = Field(description="Kernel spec name.")
    notebook: str | None = Field(None, description="Path of its notebook, relative to the server's root.")
    language: str
    placement: Placement
    movable: Literal["state", "fresh"] = Field(
        description="state: variables follow; fresh: another language, it starts anew."
    )
    busy: bool = False
    lease: str | None = None
    move: Move | None = None
    last_verdict: list[Verdict] = Field(default_factory=list)
    saved_at: datetime | None = Field(
        None, description="When its variables were last saved in this life of the kernel, for any reason."
    )
    save_problem: str | None = Field(
        None, description="Why the last automatic save failed, one sentence; None: it did not."
    )
    notices: list[KernelNotice] = Field(default_factory=list)


class CommandStatus(Outgoing):
    """A ``gpu run`` or ``gpu shell`` on the worker."""

    id: str
    command: str
    started_at: datetime


class Status(Outgoing):
    """Everything the sidebar shows."""

    server: str
    user: str
    lease: Lease | None = Field(None, description="This server's lease that has not ended, if any.")
    kernels: list[KernelStatus]
    commands: list[CommandStatus] = Field(default_factory=list)
    pools: list[Pool] = Field(default_factory=list)
    quotas: list[QuotaUse] = Field(default_factory=list)
    policy: Policy | None = None
    broker: Literal["ok", "unreachable"] = "ok"
    snapshots_bytes: int = 0
    snapshots_limit_bytes: int | None = Field(
        None, description="What saved states may take; then the oldest go, never a notebook's newest."
    )
    snapshots_per_notebook: int | None = None


class PlacementRequest(Incoming):
    """Move this kernel."""

    placement: Placement
    left: Literal["refuse", "accept"] = "refuse"
    pool: Name | None = None


class SnapshotRequest(Incoming):
    """Save this kernel now, where it is."""

    left: Literal["refuse", "accept"] = "accept"


class SnapshotInfo(Outgoing):
    """One saved state, as far as it can be told without loading it."""

    id: str
    notebook: str | None
    kernel: str
    created_at: datetime
    reason: SnapshotReason
    bytes: int
    python: str = Field(description="Version of the Python that saved it, e.g. 3.11.7.")
    complete: bool = Field(description="False: damaged or unfinished; it cannot be restored.")
    problem: str | None = None
    kept: int
    left: int
    verdicts: list[Verdict] = Field(default_factory=list)


class SnapshotList(Outgoing):
    snapshots: list[SnapshotInfo]


class VariableChange(Outgoing):
    """One variable in two saved states."""

    name: str
    change: Literal["added", "removed", "changed", "same", "unknown"] = Field(
        description="unknown: it cannot be told without loading both."
    )
    before: Verdict | None = None
    after: Verdict | None = None


class SnapshotComparison(Outgoing):
    """``GET snapshots/FIRST/compare/SECOND``: what is different in the second."""

    first: str
    second: str
    variables: list[VariableChange]


class RestoreRequest(Incoming):
    """Load a snapshot into this kernel: all of it, or the named variables."""

    snapshot: SnapshotId
    names: list[Annotated[str, StringConstraints(max_length=1000)]] | None = Field(None, max_length=100_000)


class RestoreResult(Outgoing):
    snapshot: str
    verdicts: list[Verdict]


class RebuildCell(Outgoing):
    """A cell to run again."""

    number: int = Field(description="Its execution count, as in [3].")
    code: str
    makes: list[str] = Field(description="The wanted names that it makes or changes.")
    seconds: float = Field(description="How long it took when it ran.")
    warnings: list[str] = Field(default_factory=list, description="What it does beside that; sentences.")


class Unrebuildable(Outgoing):
    """A variable that no cell brings back."""

    name: str
    reason: str


class RebuildPlan(Outgoing):
    """The fewest cells that make variables again, in the order in which to run them.

    ``GET kernels/ID/rebuild`` (``?name=x&name=y``; none: all that cells made and that is gone). Run
    them in the notebook, or let ``POST kernels/ID/rebuild`` do it.
    """

    names: list[str]
    cells: list[RebuildCell]
    cannot: list[Unrebuildable] = Field(default_factory=list)


class RebuildRequest(Incoming):
    """Run the cells of a plan that was looked at. ``cells``: their numbers; the consent is to these.

    If others would be needed now, the answer is 409 and nothing runs. A cell that is still running after
    ``timeout_seconds`` is interrupted.
    """

    names: list[Annotated[str, StringConstraints(max_length=1000)]] | None = Field(None, max_length=10_000)
    cells: list[int] = Field(max_length=10_000)
    timeout_seconds: float = Field(default=600.0, gt=0, le=24 * 3600)


class RebuildResult(Outgoing):
    ran: list[int] = Field(description="The old numbers of the cells that ran through.")
    failed: int | None = Field(None, description="The cell that failed; those after it did not run.")
    error: str | None = None
    output: str = Field("", description="What they printed, cut after 20 000 characters.")


class GpuOn(Incoming):
    """Ask for a lease for this server without moving a kernel (``gpu on``)."""

    pool: Name | None = None
    gpus: int = 1


SessionEventKind = Literal["status", "kernel", "usage"]
"""status: data is a Status · kernel: data is a KernelStatus · usage: {lease, usage, idle_seconds}."""
