"""Machines that do not exist, for an API server in memory or a real one: nodes, a kubelet, a scheduler.

`StandInKubelet` plays what a kubelet does to a pod's object: runs it, makes it ready, ends it when it is
told to. `StandInScheduler` is for the server in memory; a real control plane has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from gpuhub.backends.kubernetes.api import EVENTS, NODES, PODS, Api, ApiError, Object

GPU = "nvidia.com/gpu"
BEATS_SECONDS = 8.0


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def node(name: str, gpus: int = 2, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "gpuhub.io/simulated": "true", **labels},
        },
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "16Gi", "pods": "100", GPU: str(gpus)},
            "capacity": {"cpu": "8", "memory": "16Gi", "pods": "100", GPU: str(gpus)},
            "conditions": [ready_condition(True)],
        },
    }


def ready_condition(ready: bool) -> dict[str, str]:
    return {
        "type": "Ready",
        "status": "True" if ready else "Unknown",
        "reason": "StandIn",
        "message": "",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }


def server_pod(
    user: str = "ann", server: str = "", *, namespace: str = "users", name: str = "", image: str = "lab:1"
) -> Object:
    """A server's pod as `GpuKubeSpawner` makes it (the parts that matter)."""
    slug = f"{user}--{server}" if server else user
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name or f"jupyter-{slug}",
            "namespace": namespace,
            "labels": {
                "component": "singleuser-server",
                "app.kubernetes.io/part-of": "gpuhub",
                "gpuhub.io/server": slug,
            },
            "annotations": {
                "hub.jupyter.org/username": user,
                **({"hub.jupyter.org/servername": server} if server else {}),
            },
        },
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "fsGroup": 1000,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": False,
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [
                {
                    "name": "notebook",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "env": [
                        {"name": "JUPYTERHUB_API_TOKEN", "value": "a-secret"},
                        {"name": "TZ", "value": "Europe/Berlin"},
                        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
                        {"name": "CUDA_VISIBLE_DEVICES", "value": ""},
                    ],
                    "securityContext": {
                        "runAsUser": 1000,
                        "runAsGroup": 1000,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "home", "mountPath": "/home/jovyan"},
                        {"name": "run", "mountPath": "/run/gpuhub"},
                    ],
                }
            ],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": {"claimName": f"claim-{user}"}},
                {"name": "run", "emptyDir": {"medium": "Memory"}},
            ],
        },
    }


class StandInKubelet:
    """Plays the kubelets of nodes ``names``. ``act`` may do something else with a pod (True: it did)."""

    def __init__(
        self, api: Api, *names: str, act: Callable[[Object], dict[str, Any] | None] | None = None
    ) -> None:
        self._api, self._names, self.act = api, names, act
        self.paused = False
        """It does nothing, as on a machine that is lost."""
        self.beats = False
        self._done: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StandInKubelet]:
        tasks = [asyncio.create_task(self._run())]
        if self.beats:
            tasks.append(asyncio.create_task(self._beat()))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                for pod in (await self._api.list(PODS)).items:
                    if pod["spec"].get("nodeName") in self._names and not self.paused:
                        await self._look(pod)
            except ApiError:
                pass
            await asyncio.sleep(0.02 if not self.beats else 0.2)

    async def _beat(self) -> None:
        while True:
            if not self.paused:
                for name in self._names:
                    with contextlib.suppress(ApiError):
                        body = {"status": {"conditions": [ready_condition(True)]}}
                        await self._api.patch(NODES, None, f"{name}/status", body)
            await asyncio.sleep(BEATS_SECONDS)

    async def _look(self, pod: Object) -> None:
        metadata, status = pod["metadata"], pod.get("status") or {}
        place, name = metadata["namespace"], metadata["name"]
        if metadata.get("deletionTimestamp"):
            with contextlib.suppress(ApiError):
                await self._api.delete(PODS, place, name, uid=metadata["uid"], grace_seconds=0)
            return
        wanted = self.act(pod) if self.act is not None else None
        if wanted is None and (status.get("phase") != "Pending" or metadata["uid"] in self._done):
            return
        wanted = wanted or running_status(pod)
        if repr(wanted) == self._done.get(metadata["uid"]):
            return
        self._done[metadata["uid"]] = repr(wanted)
        await self._api.patch(PODS, place, f"{name}/status", {"status": wanted})


def running_status(pod: Object) -> dict[str, Any]:
    ip = f"10.9.0.{sum(pod['metadata']['uid'].encode()) % 250 + 1}"
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()},
            {"type": "Ready", "status": "True", "lastTransitionTime": now()},
        ],
        "containerStatuses": [container_status(pod, {"running": {"startedAt": now()}}, ready=True)],
    }


def held_up_status(pod: Object, reason: str) -> dict[str, Any]:
    """A pod whose container waits for ``reason``."""
    waiting = {"waiting": {"reason": reason, "message": "raw words of the kubelet"}}
    return {"phase": "Pending", "containerStatuses": [container_status(pod, waiting, ready=False)]}


def ended_status(pod: Object, reason: str = "Error", code: int = 1, **status: Any) -> dict[str, Any]:
    """A pod whose container has ended."""
    ended = {"terminated": {"reason": reason, "exitCode": code, "finishedAt": now(), "startedAt": now()}}
    return {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [container_status(pod, ended, ready=False)],
        **status,
    }


def container_status(pod: Object, state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    [container] = pod["spec"]["containers"]
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


class StandInScheduler:
    """Gives pods to the first node that they may have and that has the GPUs, and says so where none has.

    It knows node selectors, nodes by name (matchFields) and scheduling gates.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StandInScheduler]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(ApiError):
                pods = (await self._api.list(PODS)).items
                for pod in pods:
                    if not pod["spec"].get("nodeName"):
                        await self._place(pod, pods)
            await asyncio.sleep(0.02)

    async def _place(self, pod: Object, pods: list[Object]) -> None:
        place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if pod["spec"].get("schedulingGates"):
            await self._says(
                pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"
            )
            return
        machines = (await self._api.list(NODES)).items
        for machine in machines:
            if not _may_have(pod, machine):
                continue
            held = sum(
                _gpus(one)
                for one in pods
                if one["spec"].get("nodeName") == machine["metadata"]["name"]
                and one["status"].get("phase") not in ("Succeeded", "Failed")
            )
            free = int(machine["status"]["allocatable"].get(GPU, 0)) - held
            if _gpus(pod) <= free and not machine["spec"].get("unschedulable"):
                placed = {"spec": {"nodeName": machine["metadata"]["name"]}}
                pod["spec"]["nodeName"] = machine["metadata"]["name"]
                await self._api.patch(PODS, place, name, placed)
                return
        fit = sum(_may_have(pod, machine) for machine in machines)
        others = f", {len(machines) - fit} node(s) didn't match Pod's node affinity/selector"
        words = f"0/{len(machines)} nodes are available: {fit} Insufficient {GPU}"
        await self._says(
            pod, "Unschedulable", f"{words}{others if fit < len(machines) else ''}. preemption: no"
        )

    async def _says(self, pod: Object, reason: str, words: str) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": words}
        if pod["status"].get("conditions") != [condition]:
            place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            await self._api.patch(PODS, place, name, {"status": {"conditions": [condition]}})


def _may_have(pod: Object, machine: Object) -> bool:
    labels, spec = machine["metadata"]["labels"], pod["spec"]
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": [{"matchFields": []}]}
    )
    return any(
        all(machine["metadata"]["name"] in field["values"] for field in term["matchFields"])
        for term in required["nodeSelectorTerms"]
    )


async def happen(api: Api, pod: Object, reason: str, message: str = "raw words") -> None:
    """Make an event about a pod."""
    metadata = pod["metadata"]
    await api.create(
        EVENTS,
        metadata["namespace"],
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{reason.lower()}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
            "type": "Warning",
        },
    )


def _gpus(pod: Object) -> int:
    return sum(
        int(((container.get("resources") or {}).get("limits") or {}).get(GPU, 0))
        for container in pod["spec"]["containers"]
    )
