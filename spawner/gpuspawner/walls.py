"""What stands around a person's own namespace: rights, network policies, quota and limits. Pure.

The chart writes the list, from the same text as for a namespace that all share; the hub puts it into each
namespace before anything of a person is in it, and again at every start, so that a changed list reaches
those that exist. Promises: only the four kinds below, each with a name and without a namespace of its own;
rights come first, since the others are made with them. Anything else is a `ValueError` that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HUB_LABEL = "gpuhub.io/hub"
"""Whose namespace it is: broker, policies and the cluster's own rules go by it."""
PLACES = {
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "/apis/rbac.authorization.k8s.io/v1/{}/rolebindings",
    ("networking.k8s.io/v1", "NetworkPolicy"): "/apis/networking.k8s.io/v1/{}/networkpolicies",
    ("v1", "ResourceQuota"): "/api/v1/{}/resourcequotas",
    ("v1", "LimitRange"): "/api/v1/{}/limitranges",
}
"""By version and kind: where its objects are, in the order in which they are made."""


@dataclass(frozen=True)
class Wall:
    """One object."""

    version: str
    kind: str
    name: str
    content: Mapping[str, Any]

    def path(self, namespace: str) -> str:
        """Return its place at the API."""
        return f"{PLACES[self.version, self.kind].format(f'namespaces/{namespace}')}/{self.name}"

    def body(self, namespace: str) -> dict[str, Any]:
        """Return it as it is put into ``namespace``."""
        return {**self.content, "metadata": {**self.content["metadata"], "namespace": namespace}}


def read(file: Path) -> list[Wall]:
    """Read the list (YAML: ``walls: [objects]``). Raises `OSError`, `ValueError`."""
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    listed = said.get("walls") if isinstance(said, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{file}: there is no list `walls`, so nothing would stand around a namespace")
    order = list(PLACES)
    found = [_wall(file, number, one) for number, one in enumerate(listed)]
    return sorted(found, key=lambda wall: order.index((wall.version, wall.kind)))


def _wall(file: Path, number: int, one: Any) -> Wall:
    where = f"{file}: walls.{number}"
    if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
        raise ValueError(f"{where} is no object of Kubernetes")
    version, kind, name = one.get("apiVersion"), one.get("kind"), one["metadata"].get("name")
    if (version, kind) not in PLACES:
        raise ValueError(f"{where}: {version} {kind} is none of {', '.join(kind for _, kind in PLACES)}")
    if not isinstance(name, str) or not name or "/" in name or "namespace" in one["metadata"]:
        raise ValueError(f"{where}: a wall has a name, and no namespace: it is put into each person's")
    return Wall(str(version), str(kind), name, one)
