"""What a server's pod must never have, judged over the finished manifest.

`sealed` is the last step before a pod is made: profiles, options, an operator's settings and hooks have
had their say. It is pure, from a manifest (JSON, as the API takes it) to a manifest, and promises of
its result: no GPU and no other device, no rights over the machine, no token of the cluster, no passing
itself off as a worker; every container tells NVIDIA's runtime to give it nothing; there is time to save.
What breaks a promise is refused (`Unsafe`) and never quietly repaired: an operator who asked for it
learns that he does not get it.

Allow-lists where there is a list: a device of tomorrow is refused as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

Manifest = dict[str, Any]

PLAIN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
PLAIN_PREFIX = "hugepages-"
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")
ALLOWED_CAPABILITIES = ("NET_BIND_SERVICE",)
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
NO_GPU = ("NVIDIA_VISIBLE_DEVICES", "void")
WORKER_LABELS = ("gpuhub.io/lease",)
DEVICE_ANNOTATION = "cdi.k8s.io/"


class Unsafe(ValueError):
    """The pod may not be made. ``reasons``: a sentence for each promise that it would break."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


def sealed(manifest: Mapping[str, Any], *, labels: Mapping[str, str], save_seconds: float) -> Manifest:
    """Return the manifest to send. Raises `Unsafe`.

    ``labels`` are those that hub and broker find the server by; no hook may have changed them.
    """
    reasons = list(_broken(manifest, labels))
    if reasons:
        raise Unsafe(reasons)
    pod: Manifest = copy.deepcopy(dict(manifest))
    pod["spec"]["automountServiceAccountToken"] = False
    pod["spec"]["terminationGracePeriodSeconds"] = math.ceil(save_seconds)
    for _, container in _containers(pod["spec"]):
        env = container.setdefault("env", [])
        if not any(entry.get("name") == NO_GPU[0] for entry in env):
            env.append({"name": NO_GPU[0], "value": NO_GPU[1]})
    return pod


def _broken(pod: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    yield from _broken_metadata(metadata, labels)
    if spec.get("automountServiceAccountToken"):
        yield "It would carry a token of the cluster (automountServiceAccountToken)."
    if spec.get("resourceClaims"):
        yield "It would claim devices (resourceClaims)."
    yield from _broken_resources("The server", spec.get("resources"))
    for field in HOST_FIELDS:
        if spec.get(field):
            yield f"It would share the machine's own processes or network ({field})."
    for volume in spec.get("volumes") or []:
        name = volume.get("name")
        if volume.get("hostPath"):
            yield f"Its volume {name} is a folder of the machine (hostPath)."
        for source in (volume.get("projected") or {}).get("sources") or []:
            if source.get("serviceAccountToken"):
                yield f"Its volume {name} holds a token of the cluster (serviceAccountToken)."
    yield from _broken_rights("The server", spec.get("securityContext"))
    for title, container in _containers(spec):
        yield from _broken_container(title, container)


def _broken_metadata(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    found = metadata.get("labels") or {}
    for key, value in labels.items():
        if found.get(key) != value:
            yield f"Its label {key} was changed; hub and broker find it by that."
    for key in WORKER_LABELS:
        if key in found:
            yield f"It has a worker's label ({key})."
    for key in metadata.get("annotations") or {}:
        if key.startswith(DEVICE_ANNOTATION):
            yield f"It would be given devices (annotation {key})."


def _broken_container(title: str, container: Mapping[str, Any]) -> Iterator[str]:
    yield from _broken_resources(title, container.get("resources"))
    context = container.get("securityContext") or {}
    yield from _broken_rights(title, context)
    if context.get("privileged"):
        yield f"{title} would have all rights over its machine (privileged)."
    if context.get("allowPrivilegeEscalation"):
        yield f"{title} could gain rights (allowPrivilegeEscalation)."
    added = [
        name
        for name in (context.get("capabilities") or {}).get("add") or []
        if name not in ALLOWED_CAPABILITIES
    ]
    if added:
        yield f"{title} would have rights of the kernel ({', '.join(added)})."
    if context.get("procMount") not in (None, "Default"):
        yield f"{title} would see the machine's /proc (procMount)."
    if container.get("volumeDevices"):
        yield f"{title} would have block devices (volumeDevices)."
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield f"{title} would listen on its machine's own ports (hostPort)."
    for entry in container.get("env") or []:
        if entry.get("name") == NO_GPU[0] and entry.get("value") != NO_GPU[1]:
            yield f"{title} would ask for GPUs ({NO_GPU[0]})."


def _broken_resources(title: str, resources: Mapping[str, Any] | None) -> Iterator[str]:
    resources = resources or {}
    if resources.get("claims"):
        yield f"{title} would claim devices (resources.claims)."
    for kind in ("limits", "requests"):
        for name in resources.get(kind) or {}:
            if name not in PLAIN_RESOURCES and not name.startswith(PLAIN_PREFIX):
                yield f"{title} asks for {name}; GPUs are turned on inside, never at the start."


def _broken_rights(title: str, context: Mapping[str, Any] | None) -> Iterator[str]:
    context = context or {}
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        yield f"{title} would run as root."
    if (context.get("seccompProfile") or {}).get("type") == "Unconfined":
        yield f"{title} would make any system call (seccompProfile)."


def _containers(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in CONTAINERS:
        for container in spec.get(kind) or []:
            yield f"Its container {container.get('name')}", container
