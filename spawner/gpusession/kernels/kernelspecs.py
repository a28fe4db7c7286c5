"""The kernel spec "Python 3 (GPU)", offered while a server has GPUs to ask for.

Exists as a file only while it is of use, and with this very Python in it: a program that starts
kernels itself (VS Code) runs what the file says. Promises: Jupyter here and every program that
inherits the environment find it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from gpusession.kernels.argv import STAND_IN

NAME = "python3-gpu"
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")


def offer(folder: Path, environ: MutableMapping[str, str], manager: Any = None) -> Path:
    """Write the spec below ``folder`` and put that on ``JUPYTER_PATH``; return the spec's own folder.

    ``manager``: a KernelSpecManager that has read the path already.
    """
    share = folder / "share"
    place = share / "kernels" / NAME
    place.mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": [sys.executable, "-m", STAND_IN, "-f", "{connection_file}"],
        "display_name": "Python 3 (GPU)",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {
            "debugger": True,
            "supported_encryption": ["curve"],
            "gpuhub": {"placement": "worker"},
        },
    }
    (place / "kernel.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")
    _copy_logos(place)
    parts = [part for part in environ.get("JUPYTER_PATH", "").split(os.pathsep) if part]
    if str(share) not in parts:
        environ["JUPYTER_PATH"] = os.pathsep.join([*parts, str(share)])
    if manager is not None and str(share / "kernels") not in manager.kernel_dirs:
        manager.kernel_dirs = [*manager.kernel_dirs, str(share / "kernels")]
    return place


def _copy_logos(place: Path) -> None:
    from ipykernel import kernelspec  # not at import: it reads half of IPython

    for name in LOGOS:
        logo = Path(kernelspec.RESOURCES) / name
        if logo.exists():
            shutil.copyfile(logo, place / name)
