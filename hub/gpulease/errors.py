"""One tree of errors that may be shown to people, with their codes.

::

    GpuhubError
    ├── BadRequest              400  bad-request        the request cannot be understood
    │   ├── UnknownPool         400  unknown-pool       no such kind of GPU is on offer
    │   └── InvalidOption       400  invalid-option     a value is outside what is allowed
    ├── NotSignedIn             401  not-signed-in      no token, or one that is not (or no longer) valid
    ├── NotAllowed              403  not-allowed        signed in, but without the right
    │   └── LimitReached        403  limit-reached      a quota says no: used, limit, when
    ├── NotFound                404  not-found          no such thing, or not yours to see
    ├── Conflict                409  conflict           the thing is in a state that forbids it
    │   ├── LeaseOver           409  lease-over         the lease has ended or is ending
    │   ├── KeepUsedUp          409  keep-used-up       the lease cannot be kept any further
    │   ├── MoveInProgress      409  move-in-progress   this kernel is already moving
    │   ├── LeftNeedsConsent    409  left-needs-consent some variables would stay behind
    │   └── KeyReused           409  key-reused         an idempotency key with another request
    ├── TooLarge                413  too-large          the body is over its limit
    ├── SnapshotUnusable        422  snapshot-unusable  damaged, incomplete, or of another Python
    ├── Unavailable             503  unavailable        a part does not answer; trying again helps
    │   └── LinkLost            503  link-lost          the worker cannot be reached
    └── StorageFull             507  storage-full       the home volume has no room left

Each class has a ``code``, an HTTP status, a sentence for the person and a hint (what to do
next). The broker and the server map them to HTTP in one place each; `raise_for` raises the
same class on the far side. Anything else is an internal error: logged, never shown.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GpuhubError(Exception):
    """An error with a sentence for the person and a hint what to do."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    default_hint: ClassVar[str] = "Try again; if it stays, tell your operator."

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details: dict[str, Any] = details

    def as_dict(self) -> dict[str, Any]:
        """Return the wire form: ``{"code", "message", "hint", "details"}``."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": self.details,
        }


class BadRequest(GpuhubError):
    code = "bad-request"
    status = 400
    default_hint = "Check the request against the interface's description (openapi.json)."


class UnknownPool(BadRequest):
    code = "unknown-pool"
    default_hint = "List what is on offer with `gpu queue` or GET pools."


class InvalidOption(BadRequest):
    code = "invalid-option"


class NotSignedIn(GpuhubError):
    code = "not-signed-in"
    status = 401
    default_hint = "Sign in again, or make a new token on the hub's Token page."


class NotAllowed(GpuhubError):
    code = "not-allowed"
    status = 403
    default_hint = "Ask your operator for the right."


class LimitReached(NotAllowed):
    """Details: ``limit`` (name), ``used``, ``allowed``, ``unit``, ``retry_at`` (ISO time or None)."""

    code = "limit-reached"
    default_hint = "Release a GPU, or wait until the time given."


class NotFound(GpuhubError):
    code = "not-found"
    status = 404
    default_hint = "It may have ended. Reload to see what is there now."


class Conflict(GpuhubError):
    code = "conflict"
    status = 409
    default_hint = "Reload to see what is there now, then try again."


class LeaseOver(Conflict):
    code = "lease-over"
    default_hint = "Ask for a GPU again."


class KeepUsedUp(Conflict):
    code = "keep-used-up"
    default_hint = "Using the GPU keeps it; otherwise it is saved and released in time."


class MoveInProgress(Conflict):
    code = "move-in-progress"
    default_hint = "Wait until the move is done, or cancel it."


class LeftNeedsConsent(Conflict):
    """Details: ``verdicts``, the full list with at least one ``left``."""

    code = "left-needs-consent"
    default_hint = 'Look at what stays behind; then move anyway ("left": "accept") or stay.'


class KeyReused(Conflict):
    code = "key-reused"
    default_hint = "Use a new idempotency key for a new request."


class TooLarge(GpuhubError):
    code = "too-large"
    status = 413
    default_hint = "Send less."


class SnapshotUnusable(GpuhubError):
    code = "snapshot-unusable"
    status = 422
    default_hint = "Choose an older saved state, or re-run the notebook."


class Unavailable(GpuhubError):
    code = "unavailable"
    status = 503
    default_hint = "It is tried again by itself; nothing was lost."


class LinkLost(Unavailable):
    code = "link-lost"


class StorageFull(GpuhubError):
    code = "storage-full"
    status = 507
    default_hint = "Free some space in your home folder (old saved states can go), then try again."


def _tree(base: type[GpuhubError]) -> dict[str, type[GpuhubError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_tree(child))
    return found


def from_dict(data: Any, *, status: int = 500) -> GpuhubError:
    """Return the error that ``data`` (the wire form) describes.

    Unknown codes and foreign bodies become the class that fits ``status``, so that a newer or
    broken far side never turns into a `KeyError` here.
    """
    if isinstance(data, dict) and isinstance(data.get("message"), str):
        cls = _tree(GpuhubError).get(str(data.get("code")), _by_status(status))
        details = data.get("details")
        error = cls(data["message"], hint=str(data.get("hint", "")) or None)
        error.details = details if isinstance(details, dict) else {}
        return error
    return _by_status(status)(f"The other side answered with status {status}.")


def _by_status(status: int) -> type[GpuhubError]:
    for cls in (BadRequest, NotSignedIn, NotAllowed, NotFound, Conflict, TooLarge, StorageFull):
        if cls.status == status:
            return cls
    return BadRequest if 400 <= status < 500 else Unavailable
