"""What the API server says: who may do what, and whether it takes a pod."""

from __future__ import annotations

import json

from tests.charts.chart import RELEASE, Manifest
from tests.cluster.controlplane import ControlPlane

USERS = "gpuhub-users"
HUB, BROKER, AGENT = (f"system:serviceaccount:{RELEASE}:{name}" for name in ("hub", "broker", "agent"))
IMAGE = "localhost/gpuhub-base:dev"
OF_EVERYBODY = {
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
    "clustertrustbundles",
}


def rights(plane: ControlPlane, who: str, namespace: str) -> dict[str, set[str]]:
    """What the API server itself says that ``who`` may do there, besides what everybody may."""
    words = ["auth", "can-i", "--list", "--no-headers", "-n", namespace, "--as", who]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{RELEASE}", "system:authenticated"]
    for group in groups:
        words += ["--as-group", group]
    found: dict[str, set[str]] = {}
    for line in plane.kubectl(*words).splitlines():
        resource, _, rest = line.partition(" ")
        verbs = rest.rpartition("[")[2].rstrip("] \n").split()
        if resource and not line.startswith(" ") and resource.split(".")[0] not in OF_EVERYBODY:
            found.setdefault(resource, set()).update(verbs)
    return found


def server(namespace: str = USERS) -> Manifest:
    """A server's pod as the hub makes it: the least that every rule is content with."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "jupyter-ann",
            "namespace": namespace,
            "labels": {"component": "singleuser-server", "gpuhub.io/server": "ann"},
            "annotations": {"hub.jupyter.org/username": "ann"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "notebook",
                    "image": IMAGE,
                    "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def worker(gpus: str = "1", namespace: str = USERS) -> Manifest:
    """A worker's pod as the broker makes it."""
    pod = server(namespace)
    pod["metadata"]["name"] = "gpu-0123456789ab"
    pod["metadata"]["labels"] = {"component": "gpuhub-worker", "gpuhub.io/lease": "0123456789abcdef"}
    container = pod["spec"]["containers"][0]
    container["name"] = "worker"
    container["resources"]["limits"]["nvidia.com/gpu"] = gpus
    del container["env"]
    return pod


def asked(plane: ControlPlane, pod: Manifest, who: str, *words: str) -> str:
    """What the API server says to a new pod: empty when it takes it."""
    create = ["create", "-f", "-", "--as", who, *(words or ["--dry-run=server"])]
    if who == "admin":
        create = ["create", "-f", "-", *(words or ["--dry-run=server"])]
    done = plane.kubectl.run(*create, stdin=json.dumps(pod))
    return "" if done.returncode == 0 else done.stderr
