"""The section ``kubernetes`` of the broker's settings: what is taken, and how the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuhub.backends.kubernetes.settings import KubernetesPool, KubernetesSettings, Toleration
from gpuhub.broker.site import load_settings

LEAST = {"namespace": "gpuhub", "users_namespace": "users"}
POOL = {"name": "h100"}


def refusal(folder: Path, **kubernetes: Any) -> str:
    """What the operator reads for a settings file with this section."""
    content = {
        "port": 8090,
        "hub_api_url": "http://hub:8081/hub/api",
        "hub_api_token": "the-brokers-token",
        "database_url": "postgresql+psycopg://broker:the-password@db/broker",
        "kubernetes": LEAST | kubernetes,
    }
    file = folder / "broker.json"
    file.write_text(json.dumps(content))
    try:
        load_settings(file)
    except ValueError as error:
        said = str(error)
        assert "the-password" not in said
        assert "the-brokers-token" not in said
        return said
    return ""


def test_little_needs_to_be_said() -> None:
    settings = KubernetesSettings.model_validate(LEAST)
    assert settings.pools == []
    assert settings.agent_username == "system:serviceaccount:gpuhub:agent"


@pytest.mark.parametrize(
    ("kubernetes", "words"),
    [
        ({"namespce": "x"}, "kubernetes.namespce: there is no such setting"),
        ({"namespace": "Gpu Hub"}, "kubernetes.namespace: 'Gpu Hub' is no name (small letters, digits and -"),
        ({"users_namespace": "a" * 64}, "is no name (small letters, digits and -, at most 63 characters)"),
        ({"fence_seconds": 1}, "kubernetes.fence_seconds: input should be greater than or equal to 5"),
        (
            {"home_access_mode": "ReadOnlyMany"},
            "kubernetes.home_access_mode: input should be 'ReadWriteMany'",
        ),
        ({"requests": {"nvidia.com/gpu": "1"}}, "nvidia.com/gpu: only cpu, memory"),
        ({"limits": {"memory": "much"}}, "memory: 'much' is no amount (2, 500m, 8Gi)"),
        ({"limits": {"memory": "-8Gi"}}, "is no amount"),
        ({"environment": {"A B": "x"}}, "'A B' cannot be the name of a variable"),
        ({"environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "is set by the lease or the device plugin"),
        ({"environment": {"LD_PRELOAD": "/x.so"}}, "is set by the lease or the device plugin"),
        ({"telemetry": "dcgm"}, "telemetry dcgm needs prometheus_url"),
        ({"telemetry": "magic"}, "kubernetes.telemetry: input should be 'agent', 'dcgm' or 'none'"),
        ({"pools": [{"name": "H100"}]}, "kubernetes.pools.0.name: 'H100' is no name"),
        ({"pools": [POOL, POOL]}, "two pools are called h100"),
        ({"pools": [POOL, {"name": "a100"}]}, "pools h100 and a100 would count the same GPUs"),
        (
            {"pools": [{**POOL, "resource": "gpu"}]},
            "kubernetes.pools.0.resource: 'gpu' is no name of a resource, like nvidia.com/gpu",
        ),
        ({"pools": [{**POOL, "gpus": 4}]}, "kubernetes.pools.0.gpus: there is no such setting"),
        ({"pools": [{**POOL, "total": 4}]}, "counted looks at the nodes"),
        ({"pools": [{**POOL, "admission": "scheduler"}]}, "total is needed with admission scheduler"),
        ({"pools": [{**POOL, "admission": "kueue", "total": 4}]}, "queue belongs to admission kueue"),
        ({"pools": [{**POOL, "queue": "research"}]}, "queue belongs to admission kueue"),
        ({"pools": [{**POOL, "tolerations": [{"effect": "NoRun"}]}]}, "pools.0.tolerations.0.effect"),
        ({"pools": "h100"}, "kubernetes.pools: input should be a valid array"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_reason(
    tmp_path: Path, kubernetes: dict[str, Any], words: str
) -> None:
    assert words in refusal(tmp_path, **kubernetes)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, fence_seconds=1, telemetri="agent")
    assert "fence_seconds" in said
    assert "telemetri" in said


def test_pools_of_one_resource_are_told_apart_by_labels_that_exclude_each_other() -> None:
    def pools(*selectors: dict[str, str]) -> KubernetesSettings:
        named = [{"name": f"p{n}", "node_selector": one} for n, one in enumerate(selectors)]
        return KubernetesSettings.model_validate(LEAST | {"pools": named})

    assert len(pools({"gpu": "a"}, {"gpu": "b"}).pools) == 2
    for overlapping in ({}, {"gpu": "a", "disk": "fast"}):
        with pytest.raises(ValueError, match="would count the same GPUs"):
            pools({"gpu": "a"}, overlapping)


@pytest.mark.parametrize(
    ("toleration", "taint", "fits"),
    [
        ({"operator": "Exists"}, ("any", "x", "NoExecute"), True),
        ({"key": "gpu", "operator": "Exists"}, ("gpu", "x", "NoSchedule"), True),
        ({"key": "gpu", "operator": "Exists"}, ("cpu", "x", "NoSchedule"), False),
        ({"key": "gpu", "value": "yes"}, ("gpu", "yes", "NoSchedule"), True),
        ({"key": "gpu", "value": "yes"}, ("gpu", "no", "NoSchedule"), False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, ("gpu", "yes", "NoSchedule"), False),
    ],
)
def test_a_toleration_means_what_kubernetes_means(
    toleration: dict[str, str], taint: tuple[str, str, str], fits: bool
) -> None:
    assert Toleration.model_validate(toleration).tolerates(*taint) is fits


def test_a_toleration_is_sent_as_kubernetes_writes_it() -> None:
    pool = KubernetesPool.model_validate({**POOL, "tolerations": [{"key": "gpu", "operator": "Exists"}]})
    assert [one.manifest() for one in pool.tolerations] == [{"key": "gpu", "operator": "Exists"}]
