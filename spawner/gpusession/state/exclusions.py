"""The variables that the person does not want saved (``%gpustate exclude NAME``).

They are told as left, "excluded by you", and need nobody's consent; a move leaves them behind. The list
travels with the state. Promises: a name stays excluded until it is included again, whether or not there
is such a variable at the moment.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

REASON = "You excluded it."
HINT = "To have it saved again: %gpustate include {name}"
MOST = 10_000

_EXCLUDED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def of(shell: Any) -> set[str]:
    """Return the names, to be changed in place."""
    return _EXCLUDED.setdefault(shell, set())


def verdict_on(name: str, kind: str) -> dict[str, Any]:
    """Return the verdict on an excluded variable."""
    return {
        "name": name,
        "type": kind,
        "bytes": None,
        "verdict": "left",
        "reason": REASON,
        "hint": HINT.format(name=name),
        "excluded": True,
    }


def capture(shell: Any) -> list[str] | None:
    return sorted(of(shell)) or None


def restore(shell: Any, saved: Any) -> None:
    of(shell).update(name for name in saved[:MOST] if isinstance(name, str))
