"""The bare control plane keeps what it promises, and so do its fake nodes."""

from __future__ import annotations

import subprocess

import pytest

from tests.cluster.build import KUBERNETES, program
from tests.cluster.controlplane import ControlPlane
from tests.cluster.fakenodes import fake_nodes, toleration
from tests.cluster.kubectl import Refused
from tests.cluster.pods import probe_pod
from tests.cluster.waiting import until

MANY = 200


def test_it_speaks_the_version_that_it_was_built_from(control_plane: ControlPlane) -> None:
    assert f"v{KUBERNETES}" in control_plane.kubectl("version")


@pytest.mark.parametrize(("name", "words"), [("helm", ["version"]), ("kustomize", ["version"])])
def test_its_tools_run(name: str, words: list[str]) -> None:
    assert "v" in subprocess.run([program(name), *words], capture_output=True, text=True, check=True).stdout


def test_a_service_account_may_do_only_what_its_role_says(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl
    kubectl("create", "namespace", "roles")
    kubectl("create", "serviceaccount", "reader", "-n", "roles")
    kubectl("create", "role", "reader", "--verb=get", "--resource=pods", "-n", "roles")
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=roles:reader", "-n", "roles"
    )
    who = "--as=system:serviceaccount:roles:reader"

    assert kubectl("auth", "can-i", "get", "pods", "-n", "roles", who).strip() == "yes"
    assert kubectl.run("auth", "can-i", "delete", "pods", "-n", "roles", who).stdout.strip() == "no"
    with pytest.raises(Refused, match="forbidden"):
        kubectl("get", "secrets", "-n", "roles", who)


def test_an_admission_policy_refuses_in_its_own_words(control_plane: ControlPlane) -> None:
    api = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    policy = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-configmaps"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.metadata.name != 'bad'", "message": "that name is taken"}],
        },
    }
    binding = {
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "no-configmaps"},
        "spec": {"policyName": "no-configmaps", "validationActions": ["Deny"]},
    }
    control_plane.kubectl.apply([policy, binding])

    def refusal() -> str:
        # With a dry run nothing is left, so it may be asked until the policy is in force.
        return control_plane.kubectl.run("create", "configmap", "bad", "--dry-run=server").stderr

    until(lambda: "that name is taken" in refusal(), "the policy is in force", 20)
    control_plane.kubectl("delete", "validatingadmissionpolicybinding", "no-configmaps")
    control_plane.kubectl("delete", "validatingadmissionpolicy", "no-configmaps")


def test_fake_nodes_run_hundreds_of_gpu_pods(control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl
    kubectl("create", "namespace", "scale")
    with fake_nodes(control_plane, 30) as nodes:
        kubectl.apply(
            [probe_pod("scale", f"pod-{n}", gpus=1, tolerations=[toleration()]) for n in range(MANY)]
        )

        until(lambda: _running(control_plane) == MANY, f"{MANY} pods run", 120)

        places = {pod["spec"]["nodeName"] for pod in kubectl.list("pod", "scale")}
        assert places <= set(nodes)
        kubectl("delete", "namespace", "scale", "--now")


def _running(plane: ControlPlane) -> int:
    return sum(pod["status"].get("phase") == "Running" for pod in plane.kubectl.list("pod", "scale"))
