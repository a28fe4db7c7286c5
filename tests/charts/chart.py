"""The chart, rendered as people do it."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

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
MOUNT = "/etc/gpuhub"
"""Where each part finds its settings and secrets."""


def mounted(made: Rendered, part: str, folder: Path) -> None:
    """Write what the volume `settings` of a part brings into its container."""
    volumes = made.one("Deployment", part)["spec"]["template"]["spec"]["volumes"]
    [settings] = [volume for volume in volumes if volume["name"] == "settings"]
    for source in settings["projected"]["sources"]:
        if "configMap" in source:
            files = made.one("ConfigMap", source["configMap"]["name"])["data"]
        else:
            data = made.one("Secret", source["secret"]["name"])["data"]
            files = {
                item["path"]: base64.b64decode(data[item["key"]]).decode()
                for item in source["secret"]["items"]
            }
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)


def helm(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program("helm")), *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def site_options(site: str) -> list[str]:
    return [] if site == "defaults" else ["--values", str(VALUES / f"{site}.yaml")]


def render_chart(folder: Path, site: str, **values: Any) -> Rendered:
    """Render with a values file of ours, and ``values`` over it. Raises `RenderRefused`."""
    more = folder / "values.yaml"
    more.write_text(yaml.safe_dump(values))
    words = ["template", RELEASE, str(CHART), "--namespace", RELEASE, "--kube-version", "1.34.0"]
    done = helm(*words, *site_options(site), "--values", str(more))
    if done.returncode:
        raise RenderRefused(done.stderr)
    return Rendered([entry for entry in yaml.safe_load_all(done.stdout) if entry])


def ensure_account(plane: ControlPlane, namespace: str) -> None:
    """The controllers make it soon; pods are refused until then."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    account["metadata"]["namespace"] = namespace  # type: ignore[index]
    plane.kubectl.apply(account)
