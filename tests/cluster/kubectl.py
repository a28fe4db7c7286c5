"""The cluster's own kubectl, as tests use it: words in, text or objects out, a sentence when it fails."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.build import program
from tests.cluster.waiting import ClusterError

SECONDS = 120.0


class Kubectl:
    """``kubectl("get", "pods")`` returns what it printed; failing raises `Refused` with what it said."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.path = program("kubectl")

    def __call__(self, *words: str, stdin: str | None = None, seconds: float = SECONDS) -> str:
        done = self.run(*words, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise Refused(
                f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}".rstrip()
            )
        return done.stdout

    def run(
        self, *words: str, stdin: str | None = None, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Return the outcome, good or bad."""
        return subprocess.run(
            self.command(*words),
            input=stdin,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def command(self, *words: str) -> list[str]:
        """Return the whole command, for those who run it themselves (with `environment`)."""
        return [str(self.path), "--kubeconfig", str(self.kubeconfig), *words]

    def environment(self) -> dict[str, str]:
        """Return this process's environment with this cluster's kubeconfig, for kubectl, helm and others."""
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}

    def says(self, *words: str) -> str:
        """Return what it printed, "" when it failed."""
        done = self.run(*words)
        return done.stdout.strip() if done.returncode == 0 else ""

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return one object, None when there is none."""
        done = self.run("get", kind, name, *_in(namespace), "--ignore-not-found", "-o", "json")
        if done.returncode:
            raise Refused(f"get {kind} {name}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def list(self, kind: str, namespace: str | None = None, labels: str = "") -> list[dict[str, Any]]:
        """Return the objects of a kind, in all namespaces where none is given."""
        where = _in(namespace) or ["--all-namespaces"]
        answer = self("get", kind, *where, *(["-l", labels] if labels else []), "-o", "json")
        return list(json.loads(answer)["items"])

    def apply(self, objects: dict[str, Any] | Sequence[dict[str, Any]], *words: str) -> str:
        """Apply one object or several, on the server's side: an object is what was given, and defaults."""
        items = [objects] if isinstance(objects, dict) else list(objects)
        manifest = {"apiVersion": "v1", "kind": "List", "items": items}
        return self(
            "apply", "--server-side", "--force-conflicts", "-f", "-", *words, stdin=json.dumps(manifest)
        )


class Refused(ClusterError):
    """kubectl did not do it; the text holds the API server's own words."""


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []
