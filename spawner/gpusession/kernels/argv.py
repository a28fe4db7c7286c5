"""Which command really starts a kernel: ours in the place of stock ipykernel, where that works.

Exists because variables can only follow a kernel that has our agent inside, and because stock
ipykernel loses output. Promises: a Python that cannot import this very version of ours is started
exactly as its kernel spec says (and is then movable as a fresh start).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import gpulease

STOCK = frozenset({"ipykernel_launcher", "ipykernel", "ipykernel.kernelapp"})
OURS = "gpusession.kernels.ipython"
STAND_IN = "gpusession.kernels.standin"
"""What kernel specs name that other programs of the server start (see that module)."""

ASK_SECONDS = 20.0

_QUESTION = """
import importlib.util
if importlib.util.find_spec("gpusession.state.agent") and importlib.util.find_spec("ipykernel"):
    import gpulease
    print(gpulease.__version__)
"""


def resolve(argv: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return the command, and whether our agent will be inside.

    May have to run the Python in it once: not to be called on a loop.
    """
    parts = list(argv)
    try:
        at = parts.index("-m") + 1
        module = parts[at]
    except (ValueError, IndexError):
        return tuple(parts), False
    if module == OURS:
        return tuple(parts), True
    if module == STAND_IN or (module in STOCK and has_ours(parts[0])):
        parts[at] = OURS
        return tuple(parts), True
    return tuple(parts), False


def is_ipython(argv: Sequence[str]) -> bool:
    """Whether this starts IPython's kernel, ours or a stock one of any Python."""
    parts = list(argv)
    return "-m" in parts[:-1] and parts[parts.index("-m") + 1] in STOCK | {OURS}


def has_ours(python: str) -> bool:
    """Whether this Python can import the same version of ours."""
    path = shutil.which(python) or python
    try:
        changed_at = os.stat(path).st_mtime
        if os.path.samefile(path, sys.executable) and os.path.dirname(path) == os.path.dirname(
            sys.executable
        ):
            return True
    except OSError:
        return False
    return _asked(path, changed_at)


@functools.lru_cache(maxsize=64)
def _asked(path: str, changed_at: float) -> bool:
    try:
        answer = subprocess.run(
            [path, "-c", _QUESTION],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == gpulease.__version__
