"""What a server's pod must never have: each promise is tried by breaking it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gpuspawner.sealing import Unsafe, sealed

LABELS = {"component": "singleuser-server", "gpuhub.io/server": "ann"}


def pod() -> dict[str, Any]:
    return {
        "metadata": {"name": "jupyter-ann", "labels": dict(LABELS), "annotations": {}},
        "spec": {
            "containers": [{"name": "notebook", "image": "x", "resources": {"limits": {"cpu": 1}}}],
            "initContainers": [{"name": "first", "image": "y"}],
        },
    }


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    return sealed(manifest, labels=LABELS, save_seconds=90.5)


def test_what_is_safe_is_sent_with_time_to_save_and_no_token() -> None:
    before = pod()
    after = seal(before)
    assert before == pod()
    assert after["spec"]["terminationGracePeriodSeconds"] == 91
    assert after["spec"]["automountServiceAccountToken"] is False


def test_every_container_tells_nvidias_runtime_to_give_it_nothing() -> None:
    spec = seal(pod())["spec"]
    for container in spec["containers"] + spec["initContainers"]:
        assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]


def notebook(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [fields]}}


def first(**fields: Any) -> dict[str, Any]:
    return {"spec": {"initContainers": [fields]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (notebook(resources={"limits": {"nvidia.com/gpu": 1}}), "asks for nvidia.com/gpu"),
        (notebook(resources={"requests": {"amd.com/gpu": "1"}}), "asks for amd.com/gpu"),
        (first(resources={"limits": {"nvidia.com/mig-1g.5gb": 1}}), "asks for nvidia.com/mig-1g.5gb"),
        (notebook(resources={"claims": [{"name": "gpu"}]}), "claim devices"),
        ({"spec": {"resourceClaims": [{"name": "gpu"}]}}, "claim devices"),
        ({"spec": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, "asks for nvidia.com/gpu"),
        ({"metadata": {"annotations": {"cdi.k8s.io/gpu": "nvidia.com/gpu=0"}}}, "be given devices"),
        (notebook(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]), "ask for GPUs"),
        (notebook(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"x": 1}}]), "ask for GPUs"),
        (notebook(securityContext={"privileged": True}), "privileged"),
        (first(securityContext={"privileged": True}), "privileged"),
        (notebook(securityContext={"allowPrivilegeEscalation": True}), "gain rights"),
        (notebook(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), "SYS_ADMIN"),
        (notebook(securityContext={"runAsUser": 0}), "run as root"),
        ({"spec": {"securityContext": {"runAsNonRoot": False}}}, "run as root"),
        (notebook(securityContext={"seccompProfile": {"type": "Unconfined"}}), "system call"),
        (notebook(securityContext={"procMount": "Unmasked"}), "/proc"),
        (notebook(ports=[{"containerPort": 8888, "hostPort": 80}]), "hostPort"),
        (notebook(volumeDevices=[{"name": "disk"}]), "block devices"),
        ({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "folder of the machine"),
        (
            {
                "spec": {
                    "volumes": [
                        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
                    ]
                }
            },
            "token of the cluster",
        ),
        ({"spec": {"automountServiceAccountToken": True}}, "token of the cluster"),
        ({"spec": {"hostNetwork": True}}, "hostNetwork"),
        ({"spec": {"hostPID": True}}, "hostPID"),
        ({"metadata": {"labels": {"gpuhub.io/server": "bea"}}}, "was changed"),
        ({"metadata": {"labels": {"component": "gpuhub-worker"}}}, "was changed"),
        ({"metadata": {"labels": {"gpuhub.io/lease": "1"}}}, "a worker's label"),
    ],
)
def test_what_breaks_a_promise_is_refused_with_its_reason(change: dict[str, Any], said: str) -> None:
    manifest = _changed(pod(), change)
    with pytest.raises(Unsafe) as refused:
        seal(manifest)
    assert said in str(refused.value)


def test_plain_resources_are_nobodys_business() -> None:
    limits = {"cpu": 2, "memory": "1Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "64Mi"}
    seal(_changed(pod(), notebook(resources={"limits": limits})))


def _changed(manifest: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(manifest)
    for part, fields in change.items():
        for name, value in fields.items():
            if name in ("containers", "initContainers"):
                result[part][name][0].update(value[0])
            elif isinstance(value, dict):
                result[part][name] = {**result[part].get(name, {}), **value}
            else:
                result[part][name] = value
    return result
