"""What a person must be told about a kernel, until dismissed: the sentences, and the list.

Exists so that every ending, loss and restore is said in the same calm words, wherever it is
shown. Promises: a notice has an id of its own and stays until dismissed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from gpulease import errors
from gpulease.models import Lease
from gpulease.session import KernelNotice, MoveStep, SnapshotInfo, Verdict
from gpulease.states import EndReason, LeaseState
from gpusession.kernels.move import size_text

MOST_NOTICES = 20
"""Older ones make room: a kernel that loses its worker all night must not fill the page."""

WHY: dict[EndReason, str] = {
    EndReason.RELEASED: "the GPU was released",
    EndReason.IDLE: "the GPU was idle",
    EndReason.EXPIRED: "the longest time for one GPU was over",
    EndReason.PREEMPTED: "somebody with a higher priority needed the GPU",
    EndReason.QUOTA: "your GPU hours were used up",
    EndReason.REVOKED: "an operator took the GPU back",
    EndReason.CANCELLED: "the request was cancelled",
    EndReason.FAILED: "the GPU's worker failed",
    EndReason.SERVER_STOPPED: "the server stopped",
}


class Notices:
    """The notices of one kernel, newest last."""

    def __init__(self, now: Callable[[], datetime], make_id: Callable[[], str], zone: tzinfo | None = None):
        self._now, self._make_id, self._zone = now, make_id, zone
        self._all: list[KernelNotice] = []

    def list(self) -> list[KernelNotice]:
        return list(self._all)

    def dismiss(self, notice_id: str) -> None:
        """Raises NotFound."""
        kept = [notice for notice in self._all if notice.id != notice_id]
        if len(kept) == len(self._all):
            raise errors.NotFound("This notice is not there any more.")
        self._all = kept

    def drop(self, kind: str) -> None:
        self._all = [notice for notice in self._all if notice.kind != kind]

    def moved_back(self, why: str, snapshot: str | None, verdicts: list[Verdict]) -> None:
        text = f"Moved back to the server at {self._clock(self._now())}, because {why}."
        left = sum(verdict.verdict == "left" for verdict in verdicts)
        if left:
            text += " 1 variable stayed behind." if left == 1 else f" {left} variables stayed behind."
        self._add("moved-back", text, snapshot, verdicts)

    def cut(self, code: str, why: str) -> None:
        text = f"The cell that begins with “{first_line(code)}” was interrupted at {self._clock(self._now())}"
        self._add("cut", f"{text}, because {why}.", None, [])

    def lost(self, what: str, snapshot: SnapshotInfo | None, verdicts: list[Verdict]) -> None:
        if snapshot is None:
            text = f"{what} No state had been saved: the notebook starts anew on the server."
        else:
            text = f"{what} {self._restored_to(snapshot)}"
        self._add("lost", text, snapshot.id if snapshot else None, verdicts)

    def restored(self, what: str, snapshot: SnapshotInfo, verdicts: list[Verdict]) -> None:
        self._add("restored", f"{what} {self._restored_to(snapshot)}", snapshot.id, verdicts)

    def _restored_to(self, snapshot: SnapshotInfo) -> str:
        minutes = int((self._now() - snapshot.created_at).total_seconds() // 60)
        age = "less than a minute" if minutes < 1 else "1 minute" if minutes == 1 else f"{minutes} minutes"
        if minutes >= 120:
            age = f"{minutes // 60} hours"
        clock = self._clock(snapshot.created_at)
        return f"Restored to {clock}, the state of {age} ago; later changes are gone."

    def parked_back(self, what: str) -> None:
        self._add("restored", f"{what} The notebook goes on as it was before the move.", None, [])

    def plain_loss(self, text: str, snapshot: str | None = None) -> None:
        self._add("lost", text, snapshot, [])

    def offer(self, snapshot: SnapshotInfo) -> None:
        self.drop("restore-offer")
        count = f"{snapshot.kept} variables" if snapshot.kept != 1 else "1 variable"
        when = self._clock(snapshot.created_at)
        text = f"The state of {when} was saved: {count}, {size_text(snapshot.bytes)}. Restore it?"
        self._add("restore-offer", text, snapshot.id, snapshot.verdicts)

    def _add(self, kind: str, message: str, snapshot: str | None, verdicts: list[Verdict]) -> None:
        notice = KernelNotice.model_validate(
            {
                "id": self._make_id(),
                "kind": kind,
                "at": self._now(),
                "message": message,
                "snapshot": snapshot,
                "verdicts": [verdict.model_dump() for verdict in verdicts],
            }
        )
        self._all = [*self._all, notice][-MOST_NOTICES:]

    def _clock(self, at: datetime) -> str:
        there, now = at.astimezone(self._zone), self._now().astimezone(self._zone)
        return there.strftime("%H:%M" if there.date() == now.date() else "%d %b %H:%M")


def first_line(code: str) -> str:
    """The first line of a cell that says something, short enough for a sentence."""
    line = next((line.strip() for line in code.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else line[:59] + "…"


def ended(status: int) -> str:
    """How a kernel's process ended, as a sentence. ``status``: an exit code, or minus a signal's number."""
    if status == -signal.SIGKILL:
        return "The notebook's kernel was killed by the system, most often because its memory was full."
    if status in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE, -signal.SIGABRT):
        return f"The notebook's kernel crashed in compiled code ({signal.Signals(-status).name})."
    return "The notebook's kernel ended unexpectedly."


def utc_now() -> datetime:
    return datetime.now(UTC)


def waiting_for(lease: Lease | None) -> tuple[MoveStep, str]:
    """What a move that needs a GPU waits for: the step, and one sentence."""
    if lease is None:
        return "waiting", "The GPU service does not answer at the moment; asking again."
    if lease.state is LeaseState.QUEUED:
        said = lease.position.message if lease.position else lease.message
        return "waiting", said or "Waiting for a GPU."
    if lease.state is LeaseState.ENDING:
        return "waiting", "Waiting until the GPU of before has been released."
    return "starting", lease.message or "Getting your GPU ready."
