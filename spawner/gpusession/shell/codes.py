"""The exit codes of ``gpu``, for scripts.

Promises: they do not change. `gpu run` and `gpu shell` return the program's own code; when there
was no program to ask, one of the codes from 125 on.
"""

from __future__ import annotations

OK = 0
ERROR = 1
USAGE = 2
REFUSED = 3
"""A limit says no: GPUs at once, GPU-hours, longest lease."""
CANCELLED = 4
"""The wait for a GPU was called off."""
NO_SERVICE = 5
"""There is no gpuhub server here, or the GPU service does not answer."""

RUN_FAILED = 125
"""`gpu run` got no GPU, or could not reach it: nothing ran."""
CANNOT_RUN = 126
NOT_FOUND = 127
INTERRUPTED = 130
"""Ctrl-C while `gpu run` waited in line: nothing ran."""
LOST = 255
"""The GPU was lost while the program ran; its own end is not known."""

EXPLAINED = """\
Exit codes: 0 fine · 1 an error · 2 wrong usage · 3 refused by a limit · 4 the wait was cancelled ·
5 no GPU service here. `gpu run` and `gpu shell` return the program's own code (128 + n when signal
n ended it); 125 nothing ran, 126 it cannot be run, 127 not found, 130 Ctrl-C while waiting, 255 the
GPU was lost while it ran.
"""


def of_error(code: str) -> int:
    """Return the exit code for an error's ``code`` (see `gpulease.errors`)."""
    return {
        "limit-reached": REFUSED,
        "cancelled": CANCELLED,
        "lease-over": CANCELLED,
        "unavailable": NO_SERVICE,
        "bad-request": USAGE,
        "unknown-pool": USAGE,
        "invalid-option": USAGE,
    }.get(code, ERROR)
