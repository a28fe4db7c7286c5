"""The images of hub, servers and workers for a cluster without a registry: built offline, once per checksum.

Exists so that tests run in what a site runs. `images/build.py` does the work; an unchanged image is not
built again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("hub", "base")


def archives() -> list[Path]:
    """Return OCI archives with the tags ``localhost/gpuhub-hub:dev`` and ``localhost/gpuhub-base:dev``."""
    command = [sys.executable, str(ROOT / "images/build.py"), *NAMES]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"images/build.py ended with {done.returncode}; its words are above")
    return [Path(line) for line in done.stdout.splitlines()]
