"""A namespace for each person on a real API server: made by the hub, its walls hold, its rights end there.

The hub is the spawner itself with the settings that the chart renders, signed in as the chart's account.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuhub.settings import HubSettings
from gpuspawner.refusals import Refusal
from tests.charts.asking import AGENT, BROKER, HUB, asked, rights, server, worker
from tests.charts.chart import RELEASE, Manifest, Render, RenderRefused, ensure_account, site_options
from tests.charts.conftest import install
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.unit.spawner import kube

ANN, BOB = "gpuhub-user-ann", "gpuhub-user-bob"
SECONDS = 30.0
IMAGES = ["--set", "environments[0].image=localhost/gpuhub-base:dev"]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The chart with a namespace for each person, installed on a control plane of its own."""
    with running_control_plane(tmp_path_factory.mktemp("own")) as plane:
        install(plane, *site_options("one-each"), *IMAGES)
        yield plane


@pytest.fixture
def sign_in(plane: ControlPlane, tmp_path: Path) -> Callable[[str], Path]:
    """``sign_in("hub")``: a kubeconfig with a token of that account, and nothing else."""

    def write(account: str) -> Path:
        token = plane.kubectl("create", "token", account, "-n", RELEASE).strip()
        config = json.loads(plane.kubectl.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        file = tmp_path / f"{account}.kubeconfig"
        file.write_text(json.dumps(config))
        return file

    return write


@pytest.fixture
def settings(render: Render, tmp_path: Path) -> HubSettings:
    """The hub's settings as the chart renders them, with its files here."""
    made = render("one-each", environments=[{"name": "base", "title": "Python", "image": "base:1"}])
    for name, key in (("walls", "walls.yaml"), ("environments", "environments.yaml")):
        (tmp_path / key).write_text(made.one("ConfigMap", name)["data"][key])
    text = made.one("ConfigMap", "hub")["data"]["hub.json"].replace("/etc/gpuhub/secrets", str(tmp_path))
    for name in text.split('"'):
        if name.startswith(f"{tmp_path}/"):
            Path(name).write_text("0" * 64)
    return HubSettings.model_validate_json(text.replace("/etc/gpuhub", str(tmp_path)))


async def moved_in(settings: HubSettings, config: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the hub make a person's namespace."""
    async with kube.spawning(config, monkeypatch):
        made = kube.spawner(settings, person=kube.Person(name=name))
        await asyncio.wait_for(made._ensure_namespace(), 60)


@pytest.fixture
async def anns(
    plane: ControlPlane,
    settings: HubSettings,
    sign_in: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> ControlPlane:
    """Ann has a namespace, and the cluster's rules for it are in force."""
    if plane.kubectl.get("namespace", ANN) is None:
        await moved_in(settings, sign_in("hub"), monkeypatch, "ann")
        ensure_account(plane, ANN)
        deadline = time.monotonic() + SECONDS
        while "Only gpuhub's hub and broker" not in asked(plane, worker(namespace=ANN), "admin"):
            assert time.monotonic() < deadline, "the admission policies never came into force"
            await asyncio.sleep(0.2)
    return plane


# --- what the hub makes


async def test_the_hub_makes_a_namespace_with_all_its_walls(anns: ControlPlane) -> None:
    labels = anns.kubectl.get("namespace", ANN)["metadata"]["labels"]  # type: ignore[index]
    assert labels["gpuhub.io/hub"] == RELEASE
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    policies = {one["metadata"]["name"]: one["spec"] for one in anns.kubectl.list("networkpolicies", ANN)}
    assert set(policies) == {"gpuhub-default-deny", "gpuhub-servers", "gpuhub-workers"}
    assert policies["gpuhub-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    [quota] = anns.kubectl.list("resourcequotas", ANN)
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == "4"
    [limits] = anns.kubectl.list("limitranges", ANN)
    assert limits["spec"]["limits"][0]["max"] == {"storage": "50Gi"}
    bound = {one["metadata"]["name"] for one in anns.kubectl.list("rolebindings", ANN)}
    assert bound == {"gpuhub-hub", "gpuhub-broker"}


def test_the_walls_are_those_of_a_namespace_for_all(render: Render) -> None:
    shared = render("one-each", users={"namespace": {"perPerson": {"enabled": False}}})
    own = yaml.safe_load(render("one-each").one("ConfigMap", "walls")["data"]["walls.yaml"])["walls"]
    for kind in ("NetworkPolicy", "ResourceQuota", "LimitRange"):
        ours = {one["metadata"]["name"]: one["spec"] for one in own if one["kind"] == kind}
        theirs = {
            one["metadata"]["name"]: one["spec"]
            for one in shared.of(kind)
            if one["metadata"].get("namespace") == "gpuhub-users"
        }
        assert ours == theirs
        assert ours


async def test_a_changed_wall_is_put_right_at_the_next_start(
    anns: ControlPlane,
    settings: HubSettings,
    sign_in: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anns.kubectl("delete", "networkpolicy", "gpuhub-workers", "-n", ANN)
    open_ = {"spec": {"policyTypes": ["Ingress"], "ingress": [{}]}}
    words = ["patch", "networkpolicy", "gpuhub-default-deny", "-n", ANN, "--type=merge", "-p"]
    anns.kubectl(*words, json.dumps(open_))
    await moved_in(settings, sign_in("hub"), monkeypatch, "ann")
    assert anns.kubectl.get("networkpolicy", "gpuhub-workers", ANN) is not None
    spec = anns.kubectl.get("networkpolicy", "gpuhub-default-deny", ANN)["spec"]  # type: ignore[index]
    assert spec["policyTypes"] == ["Ingress", "Egress"]


async def test_a_namespace_that_is_something_elses_is_left_alone(
    plane: ControlPlane,
    settings: HubSettings,
    sign_in: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpuhub-user-carl"}}
    plane.kubectl.apply(taken)
    with pytest.raises(Refusal, match="belongs to something else"):
        await moved_in(settings, sign_in("hub"), monkeypatch, "carl")
    assert plane.kubectl.list("rolebindings", "gpuhub-user-carl") == []


# --- rights

EVERYWHERE: dict[str, dict[str, set[str]]] = {
    HUB: {
        "namespaces": {"get", "create"},
        "pods": {"list", "watch"},
        "events": {"list", "watch"},
        "rolebindings.rbac.authorization.k8s.io": {"create", "patch"},
        "clusterroles.rbac.authorization.k8s.io": {"bind"},
    },
    BROKER: {
        "nodes": {"get", "list", "watch"},
        "namespaces": {"list", "watch"},
        "pods": {"list", "watch"},
        "events": {"list", "watch"},
        "tokenreviews.authentication.k8s.io": {"create"},
    },
    AGENT: {},
}
AT_HOME: dict[str, dict[str, set[str]]] = {
    HUB: {
        "pods": {"list", "watch", "create", "delete"},
        "persistentvolumeclaims": {"get", "create", "delete"},
        "networkpolicies.networking.k8s.io": {"create", "patch"},
        "resourcequotas": {"create", "patch"},
        "limitranges": {"create", "patch"},
    },
    BROKER: {
        "pods": {"get", "list", "watch", "create", "delete", "patch"},
        "secrets": {"get", "create", "delete", "patch"},
        "networkpolicies.networking.k8s.io": {"get", "create", "delete", "patch"},
    },
    AGENT: {},
}
OF_THE_RELEASE = {"leases.coordination.k8s.io": {"get", "create", "update"}}


@pytest.mark.parametrize("who", [HUB, BROKER, AGENT])
@pytest.mark.parametrize("namespace", [ANN, RELEASE, "kube-system"])
async def test_each_part_has_its_rights_in_peoples_namespaces_and_almost_none_elsewhere(
    anns: ControlPlane, who: str, namespace: str
) -> None:
    allowed = copy.deepcopy(EVERYWHERE[who])
    more = AT_HOME[who] if namespace == ANN else {}
    if (who, namespace) == (BROKER, RELEASE):
        more = OF_THE_RELEASE
    for resource, verbs in more.items():
        allowed[resource] = allowed.get(resource, set()) | verbs
    assert rights(anns, who, namespace) == allowed


async def test_a_person_has_no_rights_in_a_namespace_of_their_own(anns: ControlPlane) -> None:
    assert rights(anns, f"system:serviceaccount:{ANN}:default", ANN) == {}


# --- where the hub's rights end


def space(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def binding(place: str, role: str = "gpuhub-gpuhub-hub-person", **subject: str) -> Manifest:
    who = {"kind": "ServiceAccount", "name": "hub", "namespace": RELEASE, **subject}
    if who["kind"] == "User":
        who = {"kind": "User", "name": who["name"], "apiGroup": "rbac.authorization.k8s.io"}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "more", "namespace": place},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [who],
    }


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (space("kube-more", **RESTRICTED, **{"gpuhub.io/hub": RELEASE}), "people's own namespaces only"),
        (space(f"{BOB}-x", **RESTRICTED), "people's own namespaces only"),
        (space(f"{BOB}-x", **RESTRICTED, **{"gpuhub.io/hub": "another"}), "people's own namespaces only"),
        (space(f"{BOB}-x", **{"gpuhub.io/hub": RELEASE}), "Pod Security level that was set"),
        (
            space(
                f"{BOB}-x", **{"gpuhub.io/hub": RELEASE, "pod-security.kubernetes.io/enforce": "privileged"}
            ),
            "Pod Security level that was set",
        ),
        (binding("kube-system"), "people's own namespaces only"),
        (binding(RELEASE), "people's own namespaces only"),
        (binding("default"), "people's own namespaces only"),
        (binding(ANN, name="eve"), "for the hub and the broker"),
        (binding(ANN, namespace="kube-system"), "for the hub and the broker"),
        (binding(ANN, kind="User", name="eve"), "for the hub and the broker"),
        (binding(ANN, role="cluster-admin"), "attempting to grant RBAC permissions"),
        (binding(ANN, role="admin"), "attempting to grant RBAC permissions"),
    ],
)
async def test_what_the_hub_may_not_make_is_refused(anns: ControlPlane, wanted: Manifest, words: str) -> None:
    assert words in asked(anns, wanted, HUB)


async def test_what_it_may_make_is_taken(anns: ControlPlane) -> None:
    assert asked(anns, space(f"{BOB}-x", **RESTRICTED, **{"gpuhub.io/hub": RELEASE}), HUB) == ""
    assert asked(anns, binding(ANN), HUB) == ""


async def test_it_cannot_call_a_namespace_that_exists_its_own(anns: ControlPlane) -> None:
    label = ["label", "namespace", "kube-system", f"gpuhub.io/hub={RELEASE}", "--as", HUB]
    assert "cannot patch resource" in anns.kubectl.run(*label).stderr


@pytest.mark.parametrize("who", [HUB, BROKER])
async def test_neither_makes_pods_or_reads_secrets_in_other_namespaces(anns: ControlPlane, who: str) -> None:
    pod = server("default") if who == HUB else worker(namespace="default")
    assert "cannot create resource" in asked(anns, pod, who)
    for namespace in (RELEASE, "kube-system"):
        done = anns.kubectl.run("get", "secret", "gpuhub", "-n", namespace, "--as", who)
        assert "Forbidden" in done.stderr


# --- the walls hold


async def test_hub_and_broker_make_their_pods_in_a_persons_namespace(anns: ControlPlane) -> None:
    assert asked(anns, server(ANN), HUB) == ""
    assert asked(anns, worker(namespace=ANN), BROKER) == ""


Break = Callable[[Manifest], Any]
BREAKS: dict[str, tuple[Manifest, str, Break, str]] = {
    "nobody else": (worker(namespace=ANN), "admin", lambda pod: None, "Only gpuhub's hub and broker"),
    "a GPU for the hub": (
        server(ANN),
        HUB,
        lambda pod: pod["spec"]["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        "Only gpuhub's broker hands out GPUs",
    ),
    "another image": (
        server(ANN),
        HUB,
        lambda pod: pod["spec"]["containers"][0].update(image="docker.io/miner"),
        "neither one of the environments",
    ),
    "root": (
        server(ANN),
        HUB,
        lambda pod: pod["spec"]["securityContext"].update(runAsNonRoot=False),
        "violates PodSecurity",
    ),
    "the host": (server(ANN), HUB, lambda pod: pod["spec"].update(hostNetwork=True), "hostNetwork"),
    "more GPUs than the quota": (worker("5", namespace=ANN), BROKER, lambda pod: None, "exceeded quota"),
}


@pytest.mark.parametrize("name", list(BREAKS))
async def test_a_pod_that_breaks_a_rule_is_refused(anns: ControlPlane, name: str) -> None:
    pod, who, change, words = copy.deepcopy(BREAKS[name][0]), *BREAKS[name][1:]
    change(pod)
    assert words in asked(anns, pod, who)


async def test_a_home_above_the_limit_is_refused(anns: ControlPlane) -> None:
    claim: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "claim-ann", "namespace": ANN},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "60Gi"}}},
    }
    assert "maximum storage usage per PersistentVolumeClaim is 50Gi" in asked(anns, claim, HUB)
    claim["spec"]["resources"]["requests"]["storage"] = "10Gi"
    assert asked(anns, claim, HUB) == ""


# --- settings that cannot work together


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"admission": {"enabled": False}}, "the hub could give itself rights anywhere"),
        ({"images": {"pullSecrets": ["registry"]}}, "are Secrets of one namespace"),
        ({"users": {"namespace": {"perPerson": {"prefix": "people-of-the-lab-"}}}}, "15 characters at most"),
        ({"users": {"namespace": {"perPerson": {"prefix": "Lab-"}}}}, "15 characters at most"),
        ({"hub": {"enabled": False}, "secrets": {"existing": "hub"}}, "the hub makes people's namespaces"),
    ],
)
def test_what_own_namespaces_cannot_go_with_is_one_sentence(
    render: Render, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RenderRefused) as refused:
        render("one-each", **values)
    assert sentence in str(refused.value)


def test_hub_proxy_and_broker_let_in_servers_of_labelled_namespaces_alone(render: Render) -> None:
    made = render("one-each")
    for name in ("hub", "broker"):
        source = made.one("NetworkPolicy", name)["spec"]["ingress"][0]["from"][0]
        assert source["namespaceSelector"] == {"matchLabels": {"gpuhub.io/hub": RELEASE}}
    assert made.of("Namespace") == []
