"""The chart, rendered as people do it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cluster.build import program
from tests.cluster.controlplane import ControlPlane

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "helm-values/values"
CHART = ROOT / "helm-values/gpuhub"
SITES = ["defaults", *sorted(path.stem for path in VALUES.glob("*.yaml"))]
"""Every values file that we ship, and none."""
RELEASE = "gpuhub"


class RenderRefused(Exception):
    """helm's own words."""


Manifest = dict[str, Any]


class Rendered:
    """What helm made of the chart."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def of(self, kind: str) -> list[Manifest]:
        return [entry for entry in self.objects if entry["kind"] == kind]

    def one(self, kind: str, name: str, namespace: str | None = None) -> Manifest:
        found = [
            entry
            for entry in self.of(kind)
            if entry["metadata"]["name"] == name
            and (namespace is None or entry["metadata"].get("namespace", RELEASE) == namespace)
        ]
        assert len(found) == 1, [(entry["kind"], entry["metadata"]["name"]) for entry in self.objects]
        return found[0]

    def pod_specs(self) -> Iterator[tuple[str, Manifest]]:
        """Every pod that the release makes by itself, with its name."""
        for entry in self.objects:
            if entry["kind"] in ("Deployment", "DaemonSet"):
                yield entry["metadata"]["name"], entry["spec"]["template"]["spec"]
            elif entry["kind"] == "Pod":
                yield entry["metadata"]["name"], entry["spec"]


Render = Callable[..., Rendered]


def helm(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program("helm")), *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def site_options(site: str) -> list[str]:
    return [] if site == "defaults" else ["--values", str(VALUES / f"{site}.yaml")]


def ensure_account(plane: ControlPlane, namespace: str) -> None:
    """The controllers make it soon; pods are refused until then."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    account["metadata"]["namespace"] = namespace  # type: ignore[index]
    plane.kubectl.apply(account)
