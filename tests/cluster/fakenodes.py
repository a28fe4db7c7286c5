"""Fake nodes by the hundred on a bare control plane: kwok says that their pods run.

For what only shows at scale: thousands of pods and GPUs, without a kubelet anywhere. The stages (what a node
or pod does next) are kwok's own, read from its Go module.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.build import TOOLS, go, program
from tests.cluster.controlplane import ControlPlane, flags
from tests.cluster.gpus import LABELS, RESOURCE
from tests.cluster.waiting import tail, until

MARK = "kwok.x-k8s.io/node"
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
START_SECONDS = 60.0
PODS = "10.212.0.0/16"


@contextlib.contextmanager
def fake_nodes(plane: ControlPlane, count: int, gpus: int = 8) -> Iterator[list[str]]:
    """Nodes with ``gpus`` GPUs each, Ready; their names. They are gone after the block.

    Pods need a toleration for the taint `MARK` = fake, so that nothing gets there by mistake.
    """
    names = [f"fake-{number}" for number in range(count)]
    stages = plane.place.folder / "kwok-stages.yaml"
    stages.write_text(_stages())
    options: dict[str, Any] = {
        "kubeconfig": plane.certificates.kubeconfig,
        "config": stages,
        "manage_all_nodes": False,
        "manage_nodes_with_annotation_selector": f"{MARK}=fake",
        "node_lease_duration_seconds": 40,
        "cidr": PODS,
    }
    plane.processes.start("kwok", [str(program("kwok")), *flags(options)])
    try:
        plane.kubectl.apply([_node(name, gpus) for name in names])
        until(lambda: _ready(plane) >= count, f"{count} fake nodes", START_SECONDS, lambda: _evidence(plane))
        yield names
    finally:
        plane.kubectl("delete", "node", *names, "--wait=false")
        plane.processes.kill("kwok")


def toleration() -> dict[str, str]:
    """Return what a pod says to be placed on a fake node."""
    return {"key": MARK, "operator": "Equal", "value": "fake", "effect": "NoSchedule"}


def _node(name: str, gpus: int) -> dict[str, Any]:
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", RESOURCE: str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {MARK: "fake"},
            "labels": {**LABELS, "kubernetes.io/hostname": name, "type": "kwok"},
        },
        "spec": {"taints": [{"key": MARK, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    }


def _ready(plane: ControlPlane) -> int:
    nodes = plane.kubectl.list("node", labels="type=kwok")
    return sum(
        any(
            one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", [])
        )
        for node in nodes
    )


def _evidence(plane: ControlPlane) -> str:
    return tail(plane.processes.log("kwok"))


def _stages() -> str:
    # The folder of the module whose version tools/kwok names: read-only, checked by its sum.
    answer = subprocess.run(
        [go(), "list", "-m", "-json", "sigs.k8s.io/kwok"],
        cwd=TOOLS / "kwok",
        env=os.environ | {"GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(json.loads(answer.stdout)["Dir"]) / "kustomize/stage"
    return "\n---\n".join((folder / name).read_text() for name in STAGES)
