"""`gpuhub doctor`: what is there, what is missing, and how to get it. Changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from gpuhub.programs import ProgramMissing, find_code_server, find_proxy
from gpuhub.telemetry.sources import Machine

State = Literal["ok", "optional", "missing"]


@dataclass(frozen=True)
class Finding:
    state: State
    name: str
    text: str


def examine(data: Path) -> list[Finding]:
    """Return everything that was looked at, the most needed first."""
    return [*_python(), *_proxy(), *_extension(), *_gpus(), *_tools(), *_folder(data)]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    state: State = "ok" if sys.version_info >= (3, 11) else "missing"
    yield Finding(state, "Python", f"{version}, {sys.executable}")
    missing = [
        name for name in ("jupyterhub", "jupyterlab", "fastapi", "asyncssh") if find_spec(name) is None
    ]
    if missing:
        yield Finding("missing", "Python packages", f"{', '.join(missing)}: make install")


def _proxy() -> Iterator[Finding]:
    try:
        yield Finding("ok", "Proxy", find_proxy()[1])
    except ProgramMissing as missing:
        yield Finding("missing", "Proxy", str(missing))


def _extension() -> Iterator[Finding]:
    place = Path(sys.prefix) / "share/jupyter/labextensions/jupyterlab-gpuhub"
    if place.is_dir():
        yield Finding("ok", "JupyterLab extension", str(place))
    else:
        yield Finding("missing", "JupyterLab extension", "the GPU switch in notebooks: make install")


def _gpus() -> Iterator[Finding]:
    inventory = Machine("auto").look()
    if inventory.simulated:
        yield Finding(
            "optional", "GPUs", f"{inventory.problem or 'No GPU was found.'} Simulated GPUs are offered."
        )
    else:
        yield Finding("ok", "GPUs", ", ".join(gpu.name for gpu in inventory.gpus))


def _tools() -> Iterator[Finding]:
    code = find_code_server()
    yield Finding("ok" if code else "optional", "VS Code", code or "not installed: make vscode")
    if os.geteuid() == 0:
        setfacl = shutil.which("setfacl")
        yield Finding(
            "ok" if setfacl else "missing",
            "setfacl",
            setfacl or "keeps GPUs from people without a lease: apt-get install acl",
        )
        yield Finding("ok", "Accounts", "root: people's servers can have accounts of their own (--auth pam)")
    else:
        yield Finding(
            "optional",
            "Accounts",
            "not root: everybody's server runs under your account. As root: --auth pam",
        )


def _folder(data: Path) -> Iterator[Finding]:
    place = data
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK):
        free = shutil.disk_usage(place).free / 1e9
        yield Finding("ok" if free > 5 else "optional", "Data folder", f"{data}, {free:.1f} GB free")
    else:
        yield Finding("missing", "Data folder", f"{data} is not writable: choose another with --data")
