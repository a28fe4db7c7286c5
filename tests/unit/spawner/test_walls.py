"""What stands around a person's own namespace, and a start that puts it up first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuspawner import walls
from gpuspawner.kube import GpuKubeSpawner
from gpuspawner.refusals import Refusal
from tests.unit.spawner import kube
from tests.unit.spawner.kube import started
from tests.unit.spawner.played import PlayedCluster

PLACE = "gpuhub-user-ann"
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "gpuhub-default-deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "gpuhub"},
    "spec": {"hard": {"pods": "3"}},
}
RIGHTS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "gpuhub-hub"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "hub-person"},
    "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": "gpuhub"}],
}


def written(folder: Path, *objects: Any) -> Path:
    file = folder / "walls.yaml"
    file.write_text(yaml.safe_dump({"walls": list(objects)}))
    return file


# --- the list


def test_rights_come_first_and_everything_is_put_into_the_namespace(tmp_path: Path) -> None:
    found = walls.read(written(tmp_path, QUOTA, DENY, RIGHTS))
    assert [wall.path(PLACE) for wall in found] == [
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{PLACE}/rolebindings/gpuhub-hub",
        f"/apis/networking.k8s.io/v1/namespaces/{PLACE}/networkpolicies/gpuhub-default-deny",
        f"/api/v1/namespaces/{PLACE}/resourcequotas/gpuhub",
    ]
    assert found[1].body(PLACE) == {**DENY, "metadata": {"name": "gpuhub-default-deny", "namespace": PLACE}}
    assert "namespace" not in DENY["metadata"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no list `walls`"),
        ("walls: []", "no list `walls`"),
        ("walls: {", "is not YAML"),
        ("- one", "no list `walls`"),
        (yaml.safe_dump({"walls": ["x"]}), r"walls\.0 is no object"),
        (
            yaml.safe_dump({"walls": [DENY, {**DENY, "kind": "Pod"}]}),
            r"walls\.1: .* Pod is none of RoleBinding",
        ),
        (yaml.safe_dump({"walls": [{**DENY, "metadata": {}}]}), r"walls\.0: a wall has a name"),
        (yaml.safe_dump({"walls": [{**DENY, "metadata": {"name": "../x"}}]}), r"walls\.0: a wall has a name"),
        (
            yaml.safe_dump({"walls": [{**DENY, "metadata": {"name": "x", "namespace": "kube-system"}}]}),
            "no namespace",
        ),
    ],
)
def test_a_list_that_cannot_be_used_says_where(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "walls.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=words):
        walls.read(file)


# --- a start


@pytest.fixture
async def ann(cluster: PlayedCluster, tmp_path: Path, port: int) -> GpuKubeSpawner:
    own = {"hub": "gpuhub", "walls_file": str(written(tmp_path, DENY, RIGHTS)), "labels": {"lab": "x"}}
    return kube.spawner(kube.settings(tmp_path, namespace="", user_namespaces=own), port=port)


async def test_a_persons_namespace_has_its_labels_and_walls_before_anything_else_is_in_it(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    await started(ann)
    labels = cluster.objects["namespaces"][f"/{PLACE}"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (labels["gpuhub.io/hub"], labels["gpuhub.io/users"], labels["lab"]) == ("gpuhub", "true", "x")
    assert cluster.objects["networkpolicies"][f"{PLACE}/gpuhub-default-deny"]["spec"] == DENY["spec"]
    assert list(cluster.pods) == [f"{PLACE}/jupyter-ann"]
    made = [kind for verb, kind in cluster.asked if verb in ("POST", "PATCH")]
    assert made == ["namespaces", "rolebindings", "networkpolicies", "persistentvolumeclaims", "pods"]
    assert await ann.poll() is None


async def test_a_changed_list_reaches_a_namespace_that_exists(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path
) -> None:
    await started(ann)
    await ann.stop(now=True)
    written(tmp_path, {**DENY, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}, RIGHTS)
    await started(ann)
    policy = cluster.objects["networkpolicies"][f"{PLACE}/gpuhub-default-deny"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("labels", [{}, {"gpuhub.io/hub": "another"}, {"gpuhub.io/users": "true"}])
async def test_a_namespace_that_is_something_elses_is_left_alone(
    cluster: PlayedCluster, ann: GpuKubeSpawner, labels: dict[str, str]
) -> None:
    cluster.put("namespaces", {"metadata": {"name": PLACE, "labels": labels}})
    with pytest.raises(Refusal, match="belongs to something else"):
        await started(ann)
    assert cluster.pods == {}
    assert cluster.objects["networkpolicies"] == {}


async def test_without_its_walls_nothing_is_made(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path
) -> None:
    (tmp_path / "walls.yaml").unlink()
    with pytest.raises(Refusal, match="not set up rightly"):
        await started(ann)
    assert cluster.objects["namespaces"] == {}


async def test_a_wall_that_is_refused_ends_the_start_before_there_is_a_pod(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    cluster.refusals["PATCH", "networkpolicies"] = (422, "the policy is invalid")
    with pytest.raises(Refusal):
        await started(ann)
    assert cluster.pods == {}


async def test_rights_that_count_a_moment_later_are_waited_for(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    cluster.refused_first["PATCH", "networkpolicies"] = (403, "hub cannot patch networkpolicies")
    await started(ann)
    assert list(cluster.pods) == [f"{PLACE}/jupyter-ann"]
