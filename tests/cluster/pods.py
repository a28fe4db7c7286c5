"""Pods for tests of the cluster: small, restricted, of the probe image, and varied by what a test needs."""

from __future__ import annotations

from typing import Any

from tests.cluster.gpus import RESOURCE
from tests.cluster.smallimages import PROBE

UID = 1000


def probe_pod(
    namespace: str,
    name: str,
    *command: str,
    gpus: int = 0,
    claim: str | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod that does ``command`` (or sleeps), with GPUs, and with a claim at /home/probe."""
    container: dict[str, Any] = {
        "name": "probe",
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": list(command) or ["sleep", "86400"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if gpus:
        container["resources"] = {"limits": {RESOURCE: str(gpus)}}
    if claim:
        spec["volumes"] = [{"name": "home", "persistentVolumeClaim": {"claimName": claim}}]
        container["volumeMounts"] = [{"name": "home", "mountPath": "/home/probe"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": UID,
                "runAsGroup": UID,
                "fsGroup": UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            **spec,
        },
    }


def web_pod(namespace: str, name: str, port: int, labels: dict[str, str]) -> dict[str, Any]:
    """A pod that answers HTTP on two ports: the one given, named ``web``, and the next."""
    script = (
        f"mkdir /tmp/www; echo here >/tmp/www/index.html; httpd -p {port + 1} -h /tmp/www; "
        f"exec httpd -f -p {port} -h /tmp/www"
    )
    pod = probe_pod(namespace, name, "sh", "-c", script, labels=labels)
    container = pod["spec"]["containers"][0]
    container["ports"] = [{"name": "web", "containerPort": port}]
    container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    return pod


def claim(namespace: str, name: str, mode: str) -> dict[str, Any]:
    """A claim of the default class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}},
    }
