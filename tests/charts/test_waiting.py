"""What workers wait for, on a real API server and scheduler: a home on one machine, and a queue like Kueue's.

The backend has the broker's own account and the chart's rules around it; machines are objects with a kubelet
that is played. Kueue itself is not here: an admission policy holds pods of a queue back as its webhook does
(gate, label, finalizer), and the tests let them through as its controller does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gpuhub.backends.base import BackendError, Phase, StartRefused, WorkerSeen
from gpuhub.backends.kubernetes import reasons
from gpuhub.backends.kubernetes.api import NODES, PODS, ApiError, ClusterApi, Kind
from gpuhub.backends.kubernetes.backend import KubernetesBackend
from gpuspawner.names import worker_name
from tests.charts.asking import IMAGE, USERS
from tests.charts.chart import RELEASE, Manifest
from tests.cluster.controlplane import ControlPlane
from tests.launching import until
from tests.unit.backends.machines import StandInKubelet, node, ready_condition, server_pod
from tests.unit.backends.running import listening, settings
from tests.unit.backends.test_backend import order

MACHINES = {"waiting-cpu": 0, "waiting-one": 1, "waiting-two": 1}
ALL = {"gpuhub.io/test": "waiting"}
POOL = {"name": "h100", "node_selector": ALL}
SECONDS = 90.0
KUEUE_GATE, KUEUE_FINALIZER = "kueue.x-k8s.io/admission", "kueue.x-k8s.io/managed"
AMY, BEN = "a" * 32, "b" * 32


def name_of(lease_id: str) -> str:
    return worker_name("gpu-", lease_id)


class Place:
    """A backend with the broker's account, and an administrator who plays everybody else."""

    def __init__(self, backend: KubernetesBackend, admin: ClusterApi) -> None:
        self.backend, self.admin = backend, admin

    async def seen(self, lease_id: str, fits: Callable[[WorkerSeen], object]) -> WorkerSeen:
        last: list[WorkerSeen | None] = []

        async def look() -> WorkerSeen | None:
            with contextlib.suppress(BackendError):
                last.append((await self.backend.observe()).get(lease_id))
                return last[-1] if last[-1] is not None and fits(last[-1]) else None
            return None

        try:
            found: WorkerSeen = await until(look, "the worker is seen so", SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last[-1] if last else None}") from None
        return found

    async def ready(self, lease_id: str) -> WorkerSeen:
        return await self.seen(lease_id, lambda worker: worker.phase is Phase.READY)

    async def pod(self, lease_id: str) -> Manifest:
        return await self.admin.get(PODS, USERS, name_of(lease_id))

    async def admit(self, lease_id: str) -> None:
        """Kueue's controller lets a pod through, onto machines of the flavour that it chose."""
        spec = {"schedulingGates": None, "nodeSelector": {**ALL, "kubernetes.io/hostname": "waiting-one"}}
        await self.admin.patch(PODS, USERS, name_of(lease_id), {"spec": spec})

    async def let_go(self, lease_id: str) -> None:
        """Kueue's controller has seen that a pod ends."""
        with contextlib.suppress(ApiError):
            await self.admin.patch(PODS, USERS, name_of(lease_id), {"metadata": {"finalizers": None}})


@pytest.fixture
async def admin(installed: ControlPlane) -> AsyncIterator[ClusterApi]:
    api = await ClusterApi.connect(installed.kubectl.kubeconfig)
    yield api
    await api.close()


@pytest.fixture
async def machines(admin: ClusterApi) -> AsyncIterator[None]:
    """Three machines, two of them with a GPU; their kubelet."""
    for name, gpus in MACHINES.items():
        machine = node(name, gpus, **ALL)
        if not gpus:
            for amounts in (machine["status"]["allocatable"], machine["status"]["capacity"]):
                del amounts["nvidia.com/gpu"]
        with contextlib.suppress(ApiError):
            await admin.create(NODES, None, machine)
        status = {**machine["status"], "conditions": [ready_condition(True)]}
        await admin.patch(NODES, None, f"{name}/status", {"status": status})
    kubelet = StandInKubelet(admin, *MACHINES)
    kubelet.beats = True

    async def untainted() -> bool:
        found = [await admin.get(NODES, None, name) for name in MACHINES]
        return not any(one["spec"].get("taints") for one in found)

    async with kubelet.running():
        await until(untainted, "the machines take pods", SECONDS)
        yield
    for name in MACHINES:
        await admin.delete(NODES, None, name)


@pytest.fixture
async def people(
    installed: ControlPlane, admin: ClusterApi, machines: None, tmp_path: Path
) -> AsyncIterator[Any]:
    """``people(amy="waiting-one")``: their servers, made by the hub, with homes that are bound."""
    hub = await ClusterApi.connect(account(installed, "hub", tmp_path))

    async def move_in(**places: str) -> None:
        for user, place in places.items():
            await home(admin, user)
            pod = server_pod(user, namespace=USERS, image=IMAGE)
            pod["spec"]["nodeName"] = place
            pod["spec"]["imagePullSecrets"] = []
            await hub.create(PODS, USERS, pod)

    yield move_in
    for pod in (await admin.list(PODS, USERS)).items:
        patch = {"metadata": {"finalizers": None}}
        with contextlib.suppress(ApiError):
            await admin.patch(PODS, USERS, pod["metadata"]["name"], patch)
        with contextlib.suppress(ApiError):
            await admin.delete(PODS, USERS, pod["metadata"]["name"], grace_seconds=0)
    await hub.close()


async def home(admin: ClusterApi, user: str) -> None:
    size = {"storage": "1Gi"}
    claim: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"claim-{user}", "namespace": USERS},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": size},
            "volumeName": f"home-{user}",
            "storageClassName": "",
        },
    }
    volume: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"home-{user}"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/tmp/{user}"},
            "claimRef": {"namespace": USERS, "name": f"claim-{user}"},
            "storageClassName": "",
        },
    }
    for kind, namespace, body in (
        (Kind("v1", "persistentvolumes", "PersistentVolume", namespaced=False), None, volume),
        (Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim"), USERS, claim),
    ):
        with contextlib.suppress(ApiError):
            await admin.create(kind, namespace, body)


def account(plane: ControlPlane, name: str, folder: Path) -> Path:
    """A kubeconfig with a token of one of the chart's accounts, and nothing else."""
    token = plane.kubectl("create", "token", name, "-n", RELEASE).strip()
    config = json.loads(plane.kubectl.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(config))
    return file


@contextlib.asynccontextmanager
async def broker(
    installed: ControlPlane, admin: ClusterApi, folder: Path, **changes: Any
) -> AsyncIterator[Place]:
    api = await ClusterApi.connect(account(installed, "broker", folder))
    told = settings(namespace=RELEASE, users_namespace=USERS, **{"pools": [POOL], **changes})
    async with listening(KubernetesBackend(api, told)) as backend:
        yield Place(backend, admin)
    await api.close()


# --- a home that one machine at a time can have


async def test_a_worker_goes_where_its_server_is_and_waits_for_that_machine_in_words(
    installed: ControlPlane, admin: ClusterApi, people: Any, tmp_path: Path
) -> None:
    await people(amy="waiting-two", ben="waiting-two")
    async with broker(installed, admin, tmp_path, home_access_mode="ReadWriteOnce") as place:
        await place.backend.start(order(lease_id=BEN, user="ben"))
        await place.ready(BEN)
        assert (await place.pod(BEN))["spec"]["nodeName"] == "waiting-two"
        await place.backend.start(order(lease_id=AMY, user="amy"))
        waits = await place.seen(AMY, lambda worker: worker.message == reasons.PINNED)
        assert waits.waiting
        said = (await place.pod(AMY))["status"]["conditions"][0]["message"]
        assert "Insufficient nvidia.com/gpu" in said, "the scheduler's own words, which nobody reads"
        await place.backend.stop(BEN, grace_seconds=1)
        await place.ready(AMY)
        assert (await place.pod(AMY))["spec"]["nodeName"] == "waiting-two"


async def test_a_server_on_a_machine_without_such_a_gpu_is_told_at_once(
    installed: ControlPlane, admin: ClusterApi, people: Any, tmp_path: Path
) -> None:
    await people(amy="waiting-cpu")
    async with broker(installed, admin, tmp_path, home_access_mode="ReadWriteOnce") as place:
        with pytest.raises(StartRefused, match="machine without such a GPU"):
            await place.backend.start(order(lease_id=AMY, user="amy"))


# --- a queue like Kueue's


@pytest.fixture
async def kueue(installed: ControlPlane, people: Any) -> AsyncIterator[None]:
    """What Kueue's webhook does to a new pod that names a queue."""
    matching = {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ]
    }
    label = "kueue.x-k8s.io/queue-name"
    change = (
        'Object{metadata: Object.metadata{labels: {"kueue.x-k8s.io/managed": "true"}, '
        f'finalizers: ["{KUEUE_FINALIZER}"]}}, '
        f'spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: "{KUEUE_GATE}"}}]}}}}'
    )
    policy: Manifest = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "plays-kueue"},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": matching,
            "matchConditions": [
                {
                    "name": "queued",
                    "expression": f"has(object.metadata.labels) && '{label}' in object.metadata.labels",
                }
            ],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": change}}],
        },
    }
    binding: Manifest = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "plays-kueue"},
        "spec": {"policyName": "plays-kueue"},
    }
    installed.kubectl.apply([policy, binding])
    probe: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "default", "labels": {label: "research"}},
        "spec": {"containers": [{"name": "probe", "image": "x"}]},
    }
    installed.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
    )

    def held_back() -> bool:
        words = ["create", "-f", "-", "--dry-run=server", "-o", "json"]
        done = installed.kubectl.run(*words, stdin=json.dumps(probe))
        return KUEUE_GATE in done.stdout

    await until(held_back, "the played webhook is in force", SECONDS)
    yield
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        installed.kubectl("delete", kind, "plays-kueue")


async def test_a_worker_in_a_queue_is_a_position_and_starts_when_it_is_let_through(
    installed: ControlPlane, admin: ClusterApi, people: Any, kueue: None, tmp_path: Path
) -> None:
    await people(amy="waiting-cpu", ben="waiting-cpu")
    queue = {**POOL, "admission": "kueue", "queue": "research", "total": 8}
    async with broker(installed, admin, tmp_path, pools=[queue]) as place:
        [offer] = await place.backend.offers()
        assert offer.total == 8
        await place.backend.start(order(lease_id=AMY, user="amy"))
        first = await place.seen(AMY, lambda worker: "queue" in worker.message)
        assert (first.waiting, first.message.endswith("no other of this hub is before it.")) == (True, True)
        pod = await place.pod(AMY)
        assert pod["spec"]["schedulingGates"] == [{"name": KUEUE_GATE}]
        assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        await place.backend.start(order(lease_id=BEN, user="ben"))
        await place.seen(BEN, lambda worker: "1 of this hub is before it" in worker.message)
        await place.admit(AMY)
        await place.ready(AMY)
        assert (await place.pod(AMY))["spec"]["nodeName"] == "waiting-one"
        await place.seen(BEN, lambda worker: "no other of this hub is before it" in worker.message)

        # Whoever gives up leaves the queue; Kueue has the last word on its own pod.
        await place.backend.stop(BEN, grace_seconds=1)
        await place.seen(BEN, lambda worker: worker.phase is Phase.STOPPING)
        await place.let_go(BEN)
        await place.seen(BEN, lambda worker: worker.phase is Phase.EXITED)
        await place.backend.forget(BEN)
        assert BEN not in await place.backend.observe()
