"""The objects that a new cluster gets before anybody uses it: what an installer would have applied."""

from __future__ import annotations

from typing import Any

from tests.cluster.addresses import Numbers
from tests.cluster.claims import storage_class

RBAC = "rbac.authorization.k8s.io"


def system_objects(numbers: Numbers) -> list[dict[str, Any]]:
    """Return roles for the components that Kubernetes has none for, DNS, and the storage class."""
    follow = ["get", "list", "watch"]
    names = [
        {"apiGroups": [""], "resources": ["services", "endpoints", "pods", "namespaces"], "verbs": follow},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": follow},
    ]
    controllers = [
        {"apiGroups": [""], "resources": ["pods", "namespaces", "persistentvolumeclaims"], "verbs": follow},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": follow},
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": [*follow, "create", "delete"]},
    ]
    return [
        # The API server as the kubelet's client: exec, logs, port-forward.
        _binding("kubeadm:cluster-admins", "cluster-admin", _subject("Group", "kubeadm:cluster-admins")),
        _role("system:coredns", names),
        _binding("system:coredns", "system:coredns", _subject("User", "system:coredns")),
        _role("gpuhub:node-controllers", controllers),
        _binding(
            "gpuhub:node-controllers",
            "gpuhub:node-controllers",
            _subject("Group", "gpuhub:node-controllers"),
        ),
        storage_class(),
        *_dns(numbers),
    ]


def _role(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}


def _binding(name: str, role: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def _subject(kind: str, name: str) -> dict[str, Any]:
    return {"kind": kind, "apiGroup": RBAC, "name": name}


def _dns(numbers: Numbers) -> list[dict[str, Any]]:
    """Return the Service whose address every pod asks, and that it is a process of the node."""
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": numbers.dns_ip,
            "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
        },
    }
    where = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [numbers.node_ip], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
    }
    return [service, where]
