"""The chart shown to a real API server: every object, every right, every rule, tried by breaking it."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.charts.asking import AGENT, BROKER, HUB, IMAGE, USERS, asked, rights, server, worker
from tests.charts.chart import CHART, RELEASE, ROOT, SITES, Manifest, Render, helm, site_options
from tests.cluster.build import program
from tests.cluster.controlplane import ControlPlane

NAMESPACE_SECONDS = 30.0


# --- every object


@pytest.mark.parametrize("site", SITES)
def test_the_api_server_takes_every_object(
    control_plane: ControlPlane, render: Render, namespace_for: Callable[[str], None], site: str
) -> None:
    # The Gateway API is no part of Kubernetes: its one object is judged by whoever installs it.
    objects = [entry for entry in render(site).objects if entry["kind"] != "HTTPRoute"]
    namespace_for(RELEASE)
    for entry in objects:
        if entry["kind"] == "Namespace":
            namespace_for(entry["metadata"]["name"])
        elif entry["kind"] not in ("PriorityClass",) and "namespace" not in entry["metadata"]:
            entry["metadata"]["namespace"] = RELEASE
    classes = [entry for entry in objects if entry["kind"] == "PriorityClass"]
    for entry in classes:
        control_plane.kubectl.apply(entry)  # pods that name it are refused without it
    try:
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        words = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
        done = control_plane.kubectl.run(*words, stdin=manifest)
        assert done.returncode == 0, done.stderr
        assert "would violate PodSecurity" not in done.stderr
    finally:  # its value can never be changed: the next site, and the release itself, bring their own
        for entry in classes:
            control_plane.kubectl("delete", "priorityclass", entry["metadata"]["name"])


def test_everything_but_the_agent_is_restricted(control_plane: ControlPlane, render: Render) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}}
    control_plane.kubectl.apply(space)
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    for name in ("default", "hub", "broker", "agent"):
        control_plane.kubectl.apply({**account, "metadata": {"name": name, "namespace": "strict"}})
    refused = {}
    for name, spec in render(
        "defaults", prePuller={"enabled": True}, priorities={"create": False}
    ).pod_specs():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        words = ["create", "-n", "strict", "--dry-run=server", "-f", "-"]
        done = control_plane.kubectl.run(*words, stdin=json.dumps(pod))
        if done.returncode:
            refused[name] = done.stderr
    assert set(refused) == {"agent"}, refused
    assert "violates PodSecurity" in refused["agent"]


OVERLAYS = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for path in ROOT.glob("helm-values/kustomize/**/kustomization.yaml")
)


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_api_server_takes_what_kustomize_builds(
    control_plane: ControlPlane, namespace_for: Callable[[str], None], folder: str
) -> None:
    done = subprocess.run(
        [str(program("kustomize")), "build", str(ROOT / folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for entry in yaml.safe_load_all(done.stdout):
        if entry["kind"] == "Namespace":
            namespace_for(entry["metadata"]["name"])
    words = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = control_plane.kubectl.run(*words, stdin=done.stdout)
    assert done.returncode == 0, done.stderr


# --- rights

RIGHTS = {
    HUB: {
        USERS: {
            "pods": {"list", "watch", "create", "delete"},
            "events": {"list", "watch"},
            "persistentvolumeclaims": {"get", "create", "delete"},
        },
        RELEASE: {},
        "kube-system": {},
    },
    BROKER: {
        USERS: {
            "pods": {"get", "list", "watch", "create", "delete", "patch"},
            "secrets": {"get", "create", "delete", "patch"},
            "networkpolicies.networking.k8s.io": {"get", "create", "delete", "patch"},
            "events": {"list", "watch"},
        },
        RELEASE: {
            "leases.coordination.k8s.io": {"get", "create", "update"},
            "pods": {"list", "watch"},
        },
        "kube-system": {"pods": {"list", "watch"}},
    },
    AGENT: {USERS: {}, RELEASE: {}, "kube-system": {}},
}
CLUSTER_RIGHTS: dict[str, dict[str, set[str]]] = {
    HUB: {},
    BROKER: {"nodes": {"get", "list", "watch"}, "tokenreviews.authentication.k8s.io": {"create"}},
    AGENT: {},
}


@pytest.mark.parametrize("who", [HUB, BROKER, AGENT])
@pytest.mark.parametrize("namespace", [USERS, RELEASE, "kube-system"])
def test_each_part_may_do_what_it_needs_and_nothing_more(
    installed: ControlPlane, who: str, namespace: str
) -> None:
    allowed = {**CLUSTER_RIGHTS[who]}
    for resource, verbs in RIGHTS[who][namespace].items():
        allowed[resource] = allowed.get(resource, set()) | verbs
    assert rights(installed, who, namespace) == allowed


@pytest.mark.parametrize("who", [f"system:serviceaccount:{USERS}:default", "system:anonymous"])
def test_people_have_no_rights_at_all(installed: ControlPlane, who: str) -> None:
    assert rights(installed, who, USERS) == {}


# --- rules


def pod_security(plane: ControlPlane, level: str) -> None:
    plane.kubectl("label", "namespace", USERS, f"pod-security.kubernetes.io/enforce={level}", "--overwrite")


@pytest.fixture(scope="module")
def ruled(installed: ControlPlane) -> ControlPlane:
    """Our rules alone, which count a moment after they were made: Pod Security would often speak first."""
    pod_security(installed, "privileged")
    pod = worker()
    deadline = time.monotonic() + NAMESPACE_SECONDS
    while "Only gpuhub's hub and broker" not in asked(installed, pod, "admin"):
        assert time.monotonic() < deadline, "the admission policies never came into force"
        time.sleep(0.2)
    return installed


def test_the_hub_makes_servers_and_the_broker_workers(ruled: ControlPlane) -> None:
    assert asked(ruled, server(), HUB) == ""
    assert asked(ruled, worker(), BROKER) == ""
    assert asked(ruled, worker("8"), BROKER) == ""


def test_nobody_else_makes_a_pod_there_not_even_an_administrator(ruled: ControlPlane) -> None:
    for pod in (server(), worker()):
        assert "Only gpuhub's hub and broker make pods" in asked(ruled, pod, "admin")


def test_the_hub_never_gets_a_gpu(ruled: ControlPlane) -> None:
    pod = server()
    pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "1"
    assert "Only gpuhub's broker hands out GPUs" in asked(ruled, pod, HUB)
    asking = {"name": "more", "image": IMAGE, "resources": {"limits": {"example.org/fpga": "1"}}}
    pod = server()
    pod["spec"]["initContainers"] = [asking]
    assert "Only gpuhub's broker hands out GPUs" in asked(ruled, pod, HUB)


def test_other_namespaces_are_not_touched(ruled: ControlPlane) -> None:
    pod = worker()
    pod["metadata"]["namespace"] = "default"
    pod["spec"]["serviceAccountName"] = "default"
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    ruled.kubectl.apply({**account, "metadata": {"name": "default", "namespace": "default"}})
    assert asked(ruled, pod, "admin") == ""


Break = Callable[[Manifest], None]


def container(pod: Manifest) -> Manifest:
    found: Manifest = pod["spec"]["containers"][0]
    return found


def breaks() -> dict[str, tuple[Manifest, str, Break, str]]:
    """By name: the pod, who asks, what is changed, and the words of the refusal."""

    def put(path: str, value: Any) -> Break:
        def change(pod: Manifest) -> None:
            *way, last = path.split("/")
            node: Any = pod
            for step in way:
                node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
            node[int(last) if isinstance(node, list) else last] = value

        return change

    spec, first = "spec", "spec/containers/0"
    token = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    void = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    image = "neither one of the environments"
    devices = "must have NVIDIA_VISIBLE_DEVICES=void"
    gained = "not privileged, add no capability"
    host = "use nothing of the host"
    return {
        "too many GPUs": (worker("9"), BROKER, lambda pod: None, "asks for 9 GPUs; 8 are allowed"),
        "a worker by name of a server": (
            worker(),
            BROKER,
            put("metadata/labels/component", "singleuser-server"),
            'label "component"',
        ),
        "a server by name of a worker": (
            server(),
            HUB,
            put("metadata/labels/component", "gpuhub-worker"),
            'label "component"',
        ),
        "another image": (server(), HUB, put(f"{first}/image", "docker.io/miner:latest"), image),
        "an image that only begins alike": (server(), HUB, put(f"{first}/image", f"{IMAGE}-evil"), image),
        "an image of an init container": (
            server(),
            HUB,
            put("spec/initContainers", [{"name": "i", "image": "docker.io/miner"}]),
            image,
        ),
        "all GPUs by variable": (server(), HUB, put(f"{first}/env/0/value", "all"), devices),
        "no word about GPUs": (server(), HUB, put(f"{first}/env", []), devices),
        "a variable from elsewhere": (
            server(),
            HUB,
            put(
                f"{first}/env/0",
                {
                    "name": "NVIDIA_VISIBLE_DEVICES",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                },
            ),
            devices,
        ),
        "a worker that chooses its GPU": (worker(), BROKER, put(f"{first}/env", void), devices),
        "a device by annotation": (
            server(),
            HUB,
            put("metadata/annotations", {"cdi.k8s.io/x": "nvidia.com/gpu=all"}),
            "Devices by annotation",
        ),
        "a resource claim": (
            worker(),
            BROKER,
            put("spec/resourceClaims", [{"name": "g", "resourceClaimName": "g"}]),
            "Devices by resource claims",
        ),
        "a token": (server(), HUB, put("spec/automountServiceAccountToken", True), "no Kubernetes token"),
        "a token by volume": (
            server(),
            HUB,
            put("spec/volumes", [token]),
            "Kubernetes tokens are no volumes",
        ),
        "a folder of the host": (
            server(),
            HUB,
            put("spec/volumes", [{"name": "h", "hostPath": {"path": "/"}}]),
            "Folders of the host",
        ),
        "the host's network": (server(), HUB, put(f"{spec}/hostNetwork", True), host),
        "the host's processes": (server(), HUB, put(f"{spec}/hostPID", True), host),
        "a port of the host": (
            server(),
            HUB,
            put(f"{first}/ports", [{"containerPort": 80, "hostPort": 80}]),
            host,
        ),
        "privilege": (server(), HUB, put(f"{first}/securityContext", {"privileged": True}), gained),
        "a capability": (
            server(),
            HUB,
            put(f"{first}/securityContext/capabilities", {"add": ["SYS_ADMIN"]}),
            gained,
        ),
        "rights to be gained": (
            server(),
            HUB,
            put(f"{first}/securityContext/allowPrivilegeEscalation", True),
            gained,
        ),
    }


BREAKS = breaks()


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_pod_that_breaks_a_rule_is_refused_in_its_words(ruled: ControlPlane, name: str) -> None:
    pod, who, change, words = copy.deepcopy(BREAKS[name][0]), *BREAKS[name][1:]
    change(pod)
    assert words in asked(ruled, pod, who)


def test_the_broker_hands_out_listed_devices_only(ruled: ControlPlane) -> None:
    pod = worker()
    container(pod)["resources"]["limits"]["example.org/fpga"] = "1"
    assert "a device that is not on the list" in asked(ruled, pod, BROKER)


def test_pod_security_holds_without_our_rules_too(ruled: ControlPlane) -> None:
    pod = server()
    pod["spec"]["securityContext"] = {}
    assert asked(ruled, pod, HUB) == ""
    pod_security(ruled, "restricted")  # as the chart makes the namespace
    try:
        assert "violates PodSecurity" in asked(ruled, pod, HUB)
    finally:
        pod_security(ruled, "privileged")


@pytest.fixture
def standing(ruled: ControlPlane) -> ControlPlane:
    """A server and a worker that exist (and never start: there is no node)."""
    for pod, who in ((server(), HUB), (worker(), BROKER)):
        if ruled.kubectl.get("pod", pod["metadata"]["name"], USERS) is None:
            assert asked(ruled, pod, who, "--save-config=false") == ""
    return ruled


def patched(plane: ControlPlane, name: str, patch: Manifest, *words: str) -> str:
    done = plane.kubectl.run(
        "patch", "pod", name, "-n", USERS, "--type=merge", "-p", json.dumps(patch), *words
    )
    return "" if done.returncode == 0 else done.stderr


def test_what_names_a_pods_owner_never_changes(standing: ControlPlane) -> None:
    labels = "labels component, gpuhub.io/* and hub.jupyter.org/*"
    notes = "annotations gpuhub.io/* and hub.jupyter.org/*"
    name = "jupyter-ann"
    for change in ({"gpuhub.io/server": "bob"}, {"gpuhub.io/server": None}, {"gpuhub.io/lease": "x"}):
        assert labels in patched(standing, name, {"metadata": {"labels": change}})
    assert labels in patched(standing, name, {"metadata": {"labels": {"component": "gpuhub-worker"}}})
    assert notes in patched(
        standing, name, {"metadata": {"annotations": {"hub.jupyter.org/username": "bob"}}}
    )
    assert notes in patched(standing, name, {"metadata": {"annotations": {"gpuhub.io/pool": "h100"}}})
    assert patched(standing, name, {"metadata": {"labels": {"team": "blue"}}}) == ""


def test_the_broker_may_renew_a_workers_key(standing: ControlPlane) -> None:
    note = {"metadata": {"annotations": {"gpuhub.io/keys-revision": "2"}}}
    assert patched(standing, "gpu-0123456789ab", note, "--as", BROKER) == ""


def test_nothing_is_added_to_a_running_pod(standing: ControlPlane) -> None:
    extra = {"spec": {"ephemeralContainers": [{"name": "look", "image": IMAGE}]}}
    words = ["--subresource=ephemeralcontainers"]
    assert "Nothing is added" in patched(standing, "jupyter-ann", extra, *words)


# --- upgrades


def secret(plane: ControlPlane) -> dict[str, str]:
    found = plane.kubectl.get("secret", "gpuhub", RELEASE)
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def test_an_upgrade_keeps_tokens_and_passwords_and_takes_given_ones(installed: ControlPlane) -> None:
    pod_security(installed, "restricted")  # as it was; an upgrade does not fight over it
    before = secret(installed)
    assert len(before["cookie-secret"]) == 64
    assert len(set(before.values())) == len(before)
    words = ["upgrade", RELEASE, str(CHART), "-n", RELEASE, *site_options("cluster-test")]
    environment = installed.kubectl.environment()
    done = helm(*words, "--set", "secrets.values.password=chosen-by-us", env=environment)
    assert done.returncode == 0, done.stderr
    assert secret(installed) == before | {"password": "chosen-by-us"}
    done = helm(*words, env=environment)
    assert done.returncode == 0, done.stderr
    assert secret(installed) == before | {"password": "chosen-by-us"}


def test_homes_and_databases_outlive_the_release(installed: ControlPlane, render: Render) -> None:
    kept = {
        (entry["kind"], entry["metadata"]["name"])
        for entry in render("cluster-test").objects
        if entry["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {
        ("Namespace", USERS),
        ("PersistentVolumeClaim", "hub-data"),
        ("PersistentVolumeClaim", "broker-data"),
    }


def test_the_notes_say_where_and_how_to_sign_in(installed: ControlPlane) -> None:
    done = helm("get", "notes", RELEASE, "-n", RELEASE, env=os.environ | installed.kubectl.environment())
    assert done.returncode == 0, done.stderr
    assert "http://ADDRESS-OF-A-NODE:30080/" in done.stdout
    assert "jsonpath='{.data.password}'" in done.stdout
    assert "helm test gpuhub -n gpuhub --logs" in done.stdout
