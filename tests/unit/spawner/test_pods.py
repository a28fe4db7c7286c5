"""A worker's pod, Secret and policy from its server's pod: what is carried over, and all that is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gpuspawner import pods
from gpuspawner.pods import UnfitServer, WorkerWants
from tests.unit.backends.machines import server_pod

Pod = dict[str, Any]
LEASE = "7f3c9a0b5d2e4f617f3c9a0b5d2e4f61"
WANTS = WorkerWants(
    name="gpu-7f3c9a0b5d2e",
    lease_id=LEASE,
    user="ann",
    server="",
    pool="h100",
    resource="nvidia.com/gpu",
    gpus=2,
    grace_seconds=60,
    fence_seconds=30,
)
CONTAINER_KEYS = {
    *("name", "image", "imagePullPolicy", "command", "env", "ports", "resources", "startupProbe"),
    *("readinessProbe", "securityContext", "terminationMessagePolicy", "volumeMounts"),
}
POD_KEYS = {
    *("automountServiceAccountToken", "enableServiceLinks", "restartPolicy", "securityContext"),
    *("terminationGracePeriodSeconds", "imagePullSecrets", "containers", "volumes", "tolerations"),
}


def server(**container: Any) -> Pod:
    """Ann's server on a machine; ``container`` replaces fields of the notebook's container."""
    pod = server_pod("ann")
    pod["metadata"]["uid"] = "uid-of-the-server"
    pod["spec"]["nodeName"] = "node1"
    pod["spec"]["containers"][0].update(container)
    return pod


def made(pod: Pod | None = None, **wants: Any) -> Pod:
    return pods.worker_pod(server() if pod is None else pod, replace(WANTS, **wants))


def worker(pod: Pod) -> Pod:
    [found] = pod["spec"]["containers"]
    return dict(found)


def env(pod: Pod) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in worker(pod)["env"]}


# --- what it has


def test_a_worker_has_its_servers_image_account_groups_and_home() -> None:
    pod = made()
    assert worker(pod)["image"] == "lab:1"
    assert worker(pod)["imagePullPolicy"] == "IfNotPresent"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    context = pod["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (1000, 1000, 1000)
    assert {"name": "home", "mountPath": "/home/jovyan"} in worker(pod)["volumeMounts"]
    assert {"name": "home", "persistentVolumeClaim": {"claimName": "claim-ann"}} in pod["spec"]["volumes"]


def test_it_asks_for_its_gpus_and_the_pools_room() -> None:
    pod = made(
        requests={"cpu": "2"}, limits={"memory": "8Gi"}, node_selector={"gpu": "h100"}, runtime_class="nvidia"
    )
    assert worker(pod)["resources"] == {
        "requests": {"cpu": "2", "nvidia.com/gpu": "2"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "2"},
    }
    assert pod["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert pod["spec"]["runtimeClassName"] == "nvidia"


def test_its_time_to_save_is_longer_than_what_the_worker_plans_with() -> None:
    pod = made(grace_seconds=60)
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60 + pods.MARGIN_SECONDS
    assert env(pod)["GPUHUB_GRACE_SECONDS"] == "60"


def test_it_leaves_a_lost_machine_after_its_fence() -> None:
    lost = [one for one in made()["spec"]["tolerations"] if one["effect"] == "NoExecute"]
    assert {(one["key"], one["tolerationSeconds"]) for one in lost} == {
        ("node.kubernetes.io/not-ready", 30),
        ("node.kubernetes.io/unreachable", 30),
    }


def test_an_account_of_the_container_counts_before_the_pods() -> None:
    pod = server()
    pod["spec"]["securityContext"]["runAsUser"] = 4000
    assert made(pod)["spec"]["securityContext"]["runAsUser"] == 1000
    pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = None
    assert made(pod)["spec"]["securityContext"]["runAsUser"] == 4000


def test_a_read_only_folder_and_a_part_of_a_claim_stay_what_they_are() -> None:
    pod = server()
    pod["spec"]["volumes"] += [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    ]
    pod["spec"]["containers"][0]["volumeMounts"] += [
        {"name": "data", "mountPath": "/data", "readOnly": True, "subPath": "course/2026"}
    ]
    found = made(pod)
    assert {"name": "data", "mountPath": "/data", "subPath": "course/2026", "readOnly": True} in worker(
        found
    )["volumeMounts"]
    assert {
        "name": "data",
        "persistentVolumeClaim": {"claimName": "data", "readOnly": True},
    } in found["spec"]["volumes"]


# --- the variables


def test_only_listed_variables_are_carried_over() -> None:
    given = {"TZ": "Asia/Seoul", "LC_TIME": "C", "HOME": "/home/jovyan", "HTTPS_PROXY": "http://p:3128"}
    secret = {"JUPYTERHUB_API_TOKEN": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret", "LD_PRELOAD": "/x.so"}
    own = {"GPUHUB_LEASE": "another", "GPUHUB_BROKER_URL": "http://x", "GPUHUB_GRACE_SECONDS": "9999"}
    devices = {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "CUDA_VISIBLE_DEVICES": "0",
        "NVIDIA_DRIVER_CAPABILITIES": "all",
    }
    entries = [{"name": name, "value": value} for name, value in (given | secret | own | devices).items()]
    found = env(made(server(env=entries)))
    assert found == given | {
        "GPUHUB_LEASE": LEASE,
        "GPUHUB_USER": "ann",
        "GPUHUB_DEVICES": "[]",
        "GPUHUB_GRACE_SECONDS": "60",
        "GPUHUB_FENCE_SECONDS": "30",
    }


def test_a_variable_from_a_secret_or_the_api_is_never_carried_over() -> None:
    entries = [
        {"name": "TZ", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "HOME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    pod = server(env=entries, envFrom=[{"secretRef": {"name": "hub"}}])
    assert {"TZ", "HOME"}.isdisjoint(env(made(pod)))
    assert "envFrom" not in worker(made(pod))


def test_a_value_is_text_and_never_filled_in_by_the_kubelet() -> None:
    pod = server(env=[{"name": "TZ", "value": "$(GPUHUB_LEASE)"}])
    found = env(made(pod, user="$(HOME)", environment={"DATA": "$(TZ)"}))
    assert (found["TZ"], found["GPUHUB_USER"], found["DATA"]) == ("$$(GPUHUB_LEASE)", "$$(HOME)", "$$(TZ)")


def test_the_operators_variables_count_before_the_servers() -> None:
    pod = server(env=[{"name": "HTTPS_PROXY", "value": "http://old"}])
    assert env(made(pod, environment={"HTTPS_PROXY": "http://new"}))["HTTPS_PROXY"] == "http://new"


# --- what it never has


HOSTILE: dict[str, Callable[[Pod], object]] = {
    "host network": lambda spec: spec.update(hostNetwork=True, hostPID=True, hostIPC=True),
    "a token": lambda spec: spec.update(automountServiceAccountToken=True, serviceAccountName="hub"),
    "a second container": lambda spec: spec["containers"].append({"name": "miner", "image": "miner"}),
    "an init container": lambda spec: spec.update(initContainers=[{"name": "i", "image": "miner"}]),
    "an ephemeral container": lambda spec: spec.update(ephemeralContainers=[{"name": "e", "image": "miner"}]),
    "privilege": lambda spec: spec["containers"][0].update(
        securityContext={
            "privileged": True,
            "allowPrivilegeEscalation": True,
            "capabilities": {"add": ["SYS_ADMIN"]},
            "procMount": "Unmasked",
            "seccompProfile": {"type": "Unconfined"},
            "runAsUser": 1000,
            "runAsGroup": 1000,
        }
    ),
    "sysctls": lambda spec: spec["securityContext"].update(
        sysctls=[{"name": "kernel.x", "value": "1"}], seLinuxOptions={"type": "spc_t"}
    ),
    "another command": lambda spec: spec["containers"][0].update(
        command=["sh", "-c", "evil"], args=["evil"], workingDir="/evil"
    ),
    "hooks": lambda spec: spec["containers"][0].update(
        lifecycle={"preStop": {"exec": {"command": ["evil"]}}}, livenessProbe={"exec": {"command": ["evil"]}}
    ),
    "a port of the host": lambda spec: spec["containers"][0].update(
        ports=[{"containerPort": 22, "hostPort": 22}]
    ),
    "devices": lambda spec: spec["containers"][0].update(
        resources={"limits": {"nvidia.com/gpu": "8"}, "claims": [{"name": "gpu"}]},
        volumeDevices=[{"name": "home", "devicePath": "/dev/sda"}],
    ),
    "resource claims": lambda spec: spec.update(resourceClaims=[{"name": "gpu"}]),
    "another place": lambda spec: spec.update(
        nodeSelector={"evil": "1"},
        tolerations=[{"operator": "Exists"}],
        priorityClassName="system-node-critical",
    ),
    "another runtime": lambda spec: spec.update(runtimeClassName="evil", schedulerName="evil"),
    "names of hosts": lambda spec: spec.update(
        hostAliases=[{"ip": "6.6.6.6", "hostnames": ["broker"]}], dnsConfig={"nameservers": ["6.6.6.6"]}
    ),
    "a webhook's volumes": lambda spec: (
        spec["volumes"].extend(
            [
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                {"name": "secret", "secret": {"secretName": "hub"}},
                {"name": "evil", "csi": {"driver": "evil"}},
            ]
        ),
        spec["containers"][0]["volumeMounts"].extend(
            [{"name": name, "mountPath": f"/{name}"} for name in ("token", "secret", "evil")]
        ),
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_nothing_of_a_changed_server_pod_reaches_the_worker(name: str) -> None:
    changed = server()
    HOSTILE[name](changed["spec"])
    found = made(changed)
    assert found == made()
    assert set(found["spec"]) == POD_KEYS
    assert set(worker(found)) == CONTAINER_KEYS


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"component": "singleuser-server", "gpuhub.io/server": "ann", "gpuhub.io/lease": "other"}},
        {"annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all", "gpuhub.io/user": "bob"}},
        {"finalizers": ["evil"], "ownerReferences": [{"name": "evil"}]},
    ],
)
def test_nothing_of_its_labels_notes_and_owners_does_either(metadata: dict[str, Any]) -> None:
    changed = server()
    changed["metadata"].update(metadata)
    assert made(changed)["metadata"] == made()["metadata"]


def test_its_own_rights_are_the_least() -> None:
    pod = made()
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


# --- servers that no worker can be made from


@pytest.mark.parametrize(
    "volume",
    [
        {"hostPath": {"path": "/"}},
        {"nfs": {"server": "x", "path": "/"}},
        {"iscsi": {}},
        {"persistentVolumeClaim": {"claimName": "../evil"}},
        {"persistentVolumeClaim": {}},
        {"emptyDir": {}, "persistentVolumeClaim": {"claimName": "x"}},
    ],
)
def test_a_home_that_is_no_plain_claim_is_refused(volume: dict[str, Any]) -> None:
    pod = server()
    pod["spec"]["volumes"][0] = {"name": "home", **volume}
    with pytest.raises(UnfitServer):
        made(pod)


@pytest.mark.parametrize(
    "path",
    [
        *("/proc", "/proc/1", "//proc", "/./proc", "/sys/fs", "/dev", "/run/gpuhub", "/run/gpuhub/keys"),
        *("/", "//", "home", "", None, 7, "/a/../proc", "/x:y", "/run//gpuhub/"),
    ],
)
def test_a_folder_where_a_worker_cannot_have_it_is_refused(path: object) -> None:
    with pytest.raises(UnfitServer, match="where a worker cannot have it"):
        made(server(volumeMounts=[{"name": "home", "mountPath": path}]))


@pytest.mark.parametrize(
    "mount", [{"subPath": "../bob"}, {"subPath": "/etc"}, {"subPathExpr": "$(X)"}, {"subPath": 7}]
)
def test_a_part_of_a_claim_that_leads_out_of_it_is_refused(mount: dict[str, Any]) -> None:
    with pytest.raises(UnfitServer):
        made(server(volumeMounts=[{"name": "home", "mountPath": "/home/jovyan", **mount}]))


@pytest.mark.parametrize("name", ["gpuhub-run", "gpuhub-keys", "gpuhub-shm"])
def test_a_claim_by_the_name_of_our_own_volumes_is_refused(name: str) -> None:
    pod = server(volumeMounts=[{"name": name, "mountPath": "/home/jovyan"}])
    pod["spec"]["volumes"][0]["name"] = name
    with pytest.raises(UnfitServer):
        made(pod)


def test_a_server_without_a_home_that_can_be_written_is_refused() -> None:
    for mounts in ([], [{"name": "run", "mountPath": "/run/gpuhub"}]):
        with pytest.raises(UnfitServer, match="no home folder"):
            made(server(volumeMounts=mounts))
    with pytest.raises(UnfitServer, match="no home folder"):
        made(server(volumeMounts=[{"name": "home", "mountPath": "/home/jovyan", "readOnly": True}]))


@pytest.mark.parametrize("user", [0, -1, "1000", True, 2**31])
def test_an_account_that_workers_may_not_have_is_refused(user: object) -> None:
    with pytest.raises(UnfitServer, match="account"):
        made(server(securityContext={"runAsUser": user}))


@pytest.mark.parametrize("image", [None, "", "a b", "x\ny", "i" * 1025, ["lab:1"]])
def test_an_image_that_cannot_be_told_is_refused(image: object) -> None:
    with pytest.raises(UnfitServer, match="image"):
        made(server(image=image))


@pytest.mark.parametrize("slug", [None, "", "a/b", "x" * 64, "-x", 7])
def test_a_server_without_its_label_is_refused(slug: object) -> None:
    pod = server()
    pod["metadata"]["labels"]["gpuhub.io/server"] = slug
    with pytest.raises(UnfitServer, match="restart it once"):
        made(pod)


@pytest.mark.parametrize(
    "pod", [{}, {"spec": None}, {"spec": {"containers": "x"}}, {"metadata": [], "spec": 3}]
)
def test_a_pod_that_is_none_is_refused_and_never_a_crash(pod: Pod) -> None:
    with pytest.raises(UnfitServer):
        made(pod)


def test_two_containers_of_one_name_are_refused() -> None:
    pod = server()
    pod["spec"]["containers"] *= 2
    with pytest.raises(UnfitServer):
        made(pod)


# --- beside its server


def test_a_home_for_one_machine_puts_the_worker_beside_its_server() -> None:
    [term] = made(pinned=True)["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}
    assert "affinity" not in made()["spec"]


@pytest.mark.parametrize("node", [None, "", "Node 1"])
def test_a_server_that_has_no_machine_yet_is_asked_to_wait(node: object) -> None:
    pod = server()
    pod["spec"]["nodeName"] = node
    with pytest.raises(UnfitServer, match="no machine yet"):
        made(pod, pinned=True)


# --- what belongs to it


def test_its_secret_holds_the_two_keys_and_goes_with_the_server_first() -> None:
    secret = pods.worker_secret(server(), WANTS, host_key="private\n", public_key="ssh-ed25519 A")
    found = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert found == {"host_key": "private\n", "authorized_key": "ssh-ed25519 A\n"}
    [owner] = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Pod", "uid-of-the-server")
    assert "blockOwnerDeletion" not in owner, "that would want one more right"


def test_its_policy_lets_in_one_server_at_one_port() -> None:
    spec = pods.worker_policy(server(), WANTS)["spec"]
    assert spec["podSelector"] == {"matchLabels": {"gpuhub.io/lease": LEASE}}
    [rule] = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 2222}]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {"component": "singleuser-server", "gpuhub.io/server": "ann"}}}
    ]


def test_only_the_pod_stands_in_kueues_queue() -> None:
    label = "kueue.x-k8s.io/queue-name"
    wants = replace(WANTS, queue="research")
    assert pods.worker_pod(server(), wants)["metadata"]["labels"][label] == "research"
    assert label not in pods.worker_policy(server(), wants)["metadata"]["labels"]
    assert label not in made()["metadata"]["labels"]


def test_no_private_key_is_in_the_pod_or_the_policy() -> None:
    assert "private" not in json.dumps([made(), pods.worker_policy(server(), WANTS)])


@pytest.mark.parametrize("wrong", [{"name": "Gpu 1"}, {"lease_id": "a/b"}, {"lease_id": ""}])
def test_names_that_kubernetes_would_not_take_are_a_bug_of_ours(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no names for Kubernetes"):
        made(**wrong)
