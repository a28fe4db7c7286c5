"""The worker's pod, its Secret and its NetworkPolicy, made from its owner's server pod: pure functions.

Promises: the worker has the server's image, account and home, and nothing else of it. Everything is
chosen by name and checked (a server pod may have been changed by the cluster's own webhooks): no
privilege, no capability, no host path, no token, no further container is ever copied. What comes out
passes Pod Security ``restricted``. What the server pod lacks is an `UnfitServer` with one sentence.
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuspawner.objects import mapping, mappings

SERVER_CONTAINER, WORKER_CONTAINER = "notebook", "worker"
PORT = 2222
RUN = "/run/gpuhub"
RUN_BYTES = 64 * 1024 * 1024
KEYS = f"{RUN}/keys"
COMMAND = (
    *("python", "-P", "-m", "gpusession.worker"),
    *("--dir", f"{RUN}/worker", "--keys", KEYS, "--listen", f"tcp:0.0.0.0:{PORT}"),
)
MARGIN_SECONDS = 5
"""The cluster's clock starts before the worker's own: it must not be cut while it saves its last byte."""
START_TRIES = 3600

COPIED_ENV = frozenset(
    {"HOME", "USER", "LOGNAME", "NB_USER", "SHELL", "TZ", "LANG", "LANGUAGE", "TERM", "PYTHONPATH"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    | {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
    | {"HF_HOME", "HF_ENDPOINT", "TORCH_HOME", "XDG_CACHE_HOME", "OMP_NUM_THREADS"}
)
NOT_COPIED_VOLUMES = frozenset(
    {"emptyDir", "configMap", "secret", "projected", "downwardAPI", "ephemeral", "csi"}
)
"""Left with the server: its own files, or what a webhook gave it. Any other kind is refused."""
PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORBIDDEN_PLACES = ("/proc", "/sys", "/dev", RUN)
_OWN_VOLUMES = frozenset({"gpuhub-run", "gpuhub-keys", "gpuhub-shm"})


class UnfitServer(Exception):
    """A worker cannot be made from this server pod. The message is a sentence for its owner."""


@dataclass(frozen=True)
class WorkerWants:
    """What is not in the server pod: the lease, and how its pool is asked for."""

    name: str
    """Of pod, Secret and NetworkPolicy."""
    lease_id: str
    user: str
    server: str
    pool: str
    resource: str
    gpus: int
    grace_seconds: int
    fence_seconds: int
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    priority_class: str | None = None
    runtime_class: str | None = None
    queue: str | None = None
    """Kueue's LocalQueue."""
    pinned: bool = False
    """To the server's node: its home can be mounted on one node only."""


def worker_pod(server_pod: Mapping[str, Any], wants: WorkerWants) -> dict[str, Any]:
    """Return the worker's pod. Raises `UnfitServer`."""
    spec = mapping(server_pod, "spec")
    container = _notebook(spec)
    claims, mounts = _homes(spec, container)
    run_as = _account(spec, container)
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(server_pod, wants),
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": wants.grace_seconds + MARGIN_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
                **run_as,
                **_groups(spec),
            },
            "imagePullSecrets": _pull_secrets(spec),
            "containers": [
                {
                    "name": WORKER_CONTAINER,
                    "image": _image(container),
                    **_pull_policy(container),
                    "command": list(COMMAND),
                    "env": _environment(container, wants),
                    "ports": [{"name": "ssh", "containerPort": PORT, "protocol": "TCP"}],
                    "resources": _resources(wants),
                    # One look a second until it answers, then few: each is a connection to the worker.
                    "startupProbe": _probe(periodSeconds=1, failureThreshold=START_TRIES),
                    "readinessProbe": _probe(periodSeconds=15, failureThreshold=3, timeoutSeconds=5),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        *mounts,
                        {"name": "gpuhub-run", "mountPath": RUN},
                        {"name": "gpuhub-keys", "mountPath": KEYS, "readOnly": True},
                        {"name": "gpuhub-shm", "mountPath": "/dev/shm"},
                    ],
                }
            ],
            "volumes": [
                *claims,
                {"name": "gpuhub-run", "emptyDir": {"medium": "Memory", "sizeLimit": str(RUN_BYTES)}},
                {"name": "gpuhub-keys", "secret": {"secretName": wants.name, "defaultMode": 0o440}},
                # Data loaders pass their batches through it; the container's memory limit counts it.
                {"name": "gpuhub-shm", "emptyDir": {"medium": "Memory"}},
            ],
            "tolerations": [dict(one) for one in wants.tolerations] + _leave_lost_nodes(wants),
        },
    }
    if wants.node_selector:
        pod["spec"]["nodeSelector"] = dict(wants.node_selector)
    if wants.priority_class:
        pod["spec"]["priorityClassName"] = wants.priority_class
    if wants.runtime_class:
        pod["spec"]["runtimeClassName"] = wants.runtime_class
    if wants.pinned:
        pod["spec"]["affinity"] = _beside(spec)
    return pod


def worker_secret(
    server_pod: Mapping[str, Any], wants: WorkerWants, *, host_key: str, public_key: str
) -> dict[str, Any]:
    """Return the Secret with the worker's private host key and its server's public key."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": _owned(server_pod, wants),
        "data": {"host_key": _encoded(host_key), **key_data(public_key)},
    }


def key_data(public_key: str) -> dict[str, str]:
    """Return the part of the Secret that changes when the server comes with a new key."""
    return {"authorized_key": _encoded(public_key.rstrip("\n") + "\n")}


def worker_policy(server_pod: Mapping[str, Any], wants: WorkerWants) -> dict[str, Any]:
    """Return the NetworkPolicy that lets the owner's server in, and nobody else. Raises `UnfitServer`."""
    metadata = _owned(server_pod, wants)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": {"gpuhub.io/lease": wants.lease_id}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "podSelector": {
                                "matchLabels": {
                                    "component": "singleuser-server",
                                    "gpuhub.io/server": metadata["labels"]["gpuhub.io/server"],
                                }
                            }
                        }
                    ],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                }
            ],
        },
    }


def owner(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the ownerReferences by which something goes when ``pod`` does."""
    metadata = mapping(pod, "metadata")
    return [{"apiVersion": "v1", "kind": "Pod", "name": metadata.get("name"), "uid": metadata.get("uid")}]


# --- parts


def _metadata(server_pod: Mapping[str, Any], wants: WorkerWants) -> dict[str, Any]:
    server = mapping(server_pod, "metadata")
    slug = mapping(server, "labels").get("gpuhub.io/server")
    namespace = server.get("namespace")
    if not isinstance(slug, str) or not _LABEL.fullmatch(slug):
        raise UnfitServer("Your server was started before GPUs were set up here; restart it once.")
    if not isinstance(namespace, str) or not _NAME.fullmatch(namespace):
        raise UnfitServer("The place of your server in the cluster cannot be told.")
    if not _NAME.fullmatch(wants.name) or not _LABEL.fullmatch(wants.lease_id):
        raise ValueError(f"{wants.name!r}, {wants.lease_id!r}: no names for Kubernetes")
    labels = {
        "component": "gpuhub-worker",
        "app.kubernetes.io/component": "gpuhub-worker",
        "app.kubernetes.io/part-of": "gpuhub",
        "gpuhub.io/lease": wants.lease_id,
        "gpuhub.io/server": slug,
    }
    if wants.queue:
        labels["kueue.x-k8s.io/queue-name"] = wants.queue
    return {
        "name": wants.name,
        "namespace": namespace,
        "labels": labels,
        "annotations": {
            "gpuhub.io/user": wants.user,
            "gpuhub.io/server-name": wants.server,
            "gpuhub.io/pool": wants.pool,
        },
    }


def _owned(server_pod: Mapping[str, Any], wants: WorkerWants) -> dict[str, Any]:
    """Until the worker's pod exists, what was made for it goes with the server: a crash leaves nothing."""
    metadata = _metadata(server_pod, wants)
    metadata["labels"].pop("kueue.x-k8s.io/queue-name", None)
    return {**metadata, "ownerReferences": owner(server_pod)}


def _notebook(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    found = [one for one in mappings(spec, "containers") if one.get("name") == SERVER_CONTAINER]
    if len(found) != 1:
        raise UnfitServer("Your server has no container that a worker could be made from.")
    return found[0]


def _image(container: Mapping[str, Any]) -> str:
    image = container.get("image")
    if not isinstance(image, str) or not image or len(image) > 1024 or re.search(r"\s", image):
        raise UnfitServer("The image of your server cannot be told.")
    return image


def _pull_policy(container: Mapping[str, Any]) -> dict[str, str]:
    policy = container.get("imagePullPolicy")
    return {"imagePullPolicy": policy} if policy in PULL_POLICIES else {}


def _pull_secrets(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    names = [one.get("name") for one in mappings(spec, "imagePullSecrets")]
    return [{"name": name} for name in names if isinstance(name, str) and _NAME.fullmatch(name)]


def _account(spec: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in ("runAsUser", "runAsGroup"):
        value = mapping(container, "securityContext").get(name)
        if value is None:
            value = mapping(spec, "securityContext").get(name)
        if value is None:
            continue  # the image's own account; runAsNonRoot sees to it that it is not root's
        if not _is_id(value) or (name == "runAsUser" and value == 0):
            raise UnfitServer("Your server runs under an account that workers may not have.")
        found[name] = value
    return found


def _groups(spec: Mapping[str, Any]) -> dict[str, Any]:
    context = mapping(spec, "securityContext")
    found: dict[str, Any] = {}
    if _is_id(context.get("fsGroup")):
        found["fsGroup"] = context["fsGroup"]
        if context.get("fsGroupChangePolicy") in ("OnRootMismatch", "Always"):
            found["fsGroupChangePolicy"] = context["fsGroupChangePolicy"]
    more = context.get("supplementalGroups")
    groups = [one for one in more if _is_id(one) and one > 0] if isinstance(more, list) else []
    if groups:
        found["supplementalGroups"] = groups
    return found


def _homes(
    spec: Mapping[str, Any], container: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the claims that the server has mounted, and where."""
    volumes = {str(one.get("name")): one for one in mappings(spec, "volumes")}
    claims: dict[str, dict[str, Any]] = {}
    mounts: list[dict[str, Any]] = []
    for mount in mappings(container, "volumeMounts"):
        name = str(mount.get("name"))
        volume = volumes.get(name, {})
        kinds = volume.keys() - {"name"}
        if kinds != {"persistentVolumeClaim"}:
            if not kinds <= NOT_COPIED_VOLUMES:
                raise UnfitServer("Your server uses a kind of storage that a worker may not have.")
            continue
        claim = mapping(volume, "persistentVolumeClaim")
        claim_name = claim.get("claimName")
        if (
            not isinstance(claim_name, str)
            or not _NAME.fullmatch(claim_name)
            or not _NAME.fullmatch(name)
            or name in _OWN_VOLUMES
        ):
            raise UnfitServer("Your home folder cannot be told from your server.")
        claims[name] = {
            "name": name,
            "persistentVolumeClaim": {
                "claimName": claim_name,
                **({"readOnly": True} if claim.get("readOnly") is True else {}),
            },
        }
        mounts.append(_mount(name, mount))
    if not any(not one.get("readOnly") for one in mounts):
        raise UnfitServer("Your server has no home folder that a worker could share; a GPU needs one here.")
    return list(claims.values()), mounts


def _mount(name: str, mount: Mapping[str, Any]) -> dict[str, Any]:
    where = mount.get("mountPath")
    below = mount.get("subPath", "")
    if (
        not isinstance(where, str)
        or not where.startswith("/")
        or ":" in where
        or ".." in where.split("/")
        or (plain := "/" + posixpath.normpath(where).lstrip("/")) == "/"  # "//proc" is /proc too
        or any(plain == one or plain.startswith(f"{one}/") for one in _FORBIDDEN_PLACES)
    ):
        raise UnfitServer("A folder of your server lies where a worker cannot have it.")
    if (
        not isinstance(below, str)
        or below.startswith("/")
        or ".." in below.split("/")
        or mount.get("subPathExpr")
    ):
        raise UnfitServer("A folder of your server lies where a worker cannot have it.")
    found: dict[str, Any] = {"name": name, "mountPath": where}
    if below:
        found["subPath"] = below
    if mount.get("readOnly") is True:
        found["readOnly"] = True
    return found


def _environment(container: Mapping[str, Any], wants: WorkerWants) -> list[dict[str, str]]:
    found: dict[str, str] = {}
    for one in mappings(container, "env"):
        name, value = one.get("name"), one.get("value")
        if not isinstance(name, str) or not isinstance(value, str) or not _VARIABLE.fullmatch(name):
            continue
        if name in COPIED_ENV or name.startswith("LC_"):
            # "$(X)" would be filled in from our own variables.
            found[name] = value.replace("$(", "$$(")
    found.update({name: value.replace("$(", "$$(") for name, value in wants.environment.items()})
    found.update(
        {
            "GPUHUB_LEASE": wants.lease_id,
            "GPUHUB_USER": wants.user.replace("$(", "$$("),
            "GPUHUB_DEVICES": "[]",
            "GPUHUB_GRACE_SECONDS": str(wants.grace_seconds),
            "GPUHUB_FENCE_SECONDS": str(wants.fence_seconds),
        }
    )
    # Which GPUs it sees is the device plugin's word: neither of the two variables is set here.
    for name in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        found.pop(name, None)
    return [{"name": name, "value": value} for name, value in found.items()]


def _resources(wants: WorkerWants) -> dict[str, dict[str, str]]:
    gpus = {wants.resource: str(wants.gpus)}
    return {"requests": {**wants.requests, **gpus}, "limits": {**wants.limits, **gpus}}


def _probe(**times: int) -> dict[str, Any]:
    return {"tcpSocket": {"port": PORT}, **times}


def _leave_lost_nodes(wants: WorkerWants) -> list[dict[str, Any]]:
    """A worker on a lost machine ends its kernels after its fence: nothing is kept for it any longer."""
    return [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": wants.fence_seconds,
        }
        for what in ("not-ready", "unreachable")
    ]


def _beside(spec: Mapping[str, Any]) -> dict[str, Any]:
    node = spec.get("nodeName")
    if not isinstance(node, str) or not _NAME.fullmatch(node):
        raise UnfitServer("Your server has no machine yet; ask again when it runs.")
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
