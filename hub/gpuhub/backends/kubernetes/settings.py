"""What the Kubernetes backend is told: namespaces, pools, and how workers look. Part of the broker's file.

Knows neither the cluster nor the library: a chart's values can be checked with it anywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([eE][0-9]+|m|k|[KMGTPE]i?)?")


def _form(pattern: str, longest: int, said: str) -> tuple[Any, BeforeValidator]:
    """What a text must look like: as a sentence for people, and as a pattern for the chart's schema."""

    def check(value: object) -> object:
        if isinstance(value, str) and (len(value) > longest or not re.fullmatch(pattern, value)):
            raise ValueError(f"{value[:80]!r} is no {said}")
        return value

    return Field(pattern=f"^{pattern}$", max_length=longest), BeforeValidator(check)


_SMALL = "small letters, digits and -"
Name = Annotated[
    str,
    *_form(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", 253, f"name of an object ({_SMALL} and ., at most 253)"),
]
Label = Annotated[
    str, *_form(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63, f"name ({_SMALL}, at most 63 characters)")
]
Resource = Annotated[
    str,
    *_form(r"[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*", 253, "name of a resource, like nvidia.com/gpu"),
]
OURS = ("GPUHUB_", "NVIDIA_", "CUDA_", "LD_")
"""Beginnings of variables' names that nobody sets for a worker: the lease and the device plugin do."""
RESERVED = frozenset({"cpu", "memory", "ephemeral-storage"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Toleration(_Model):
    """As Kubernetes has it."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    tolerationSeconds: int | None = None

    def manifest(self) -> dict[str, object]:
        return self.model_dump(exclude_none=True, exclude_defaults=True) | {"operator": self.operator}

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether a node's taint does not keep the pod away."""
        if self.effect and self.effect != effect:
            return False
        if self.operator == "Exists":
            return not self.key or self.key == key
        return self.key == key and self.value == value


class KubernetesPool(_Model):
    """One kind of GPU, and how a pod asks for it."""

    name: Label = Field(description="Name of the pool, as people and the policy file write it.")
    title: str = Field(default="", max_length=200, description="What people read; none: the name.")
    memory_bytes: int = Field(default=0, ge=0, description="Memory of one GPU in bytes; 0: not told.")
    simulated: bool = Field(default=False, description="The GPUs do not exist; every view says so.")
    resource: Resource = Field(default="nvidia.com/gpu", description="The resource that a pod asks for.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the pool's nodes.")
    tolerations: list[Toleration] = Field(
        default_factory=list,
        description="Taints that workers tolerate. One with the resource's name is always tolerated.",
    )
    admission: Literal["counted", "scheduler", "kueue"] = Field(
        default="counted",
        description="Who keeps people in line. counted: the broker, by what is free on the nodes now "
        "(nobody's pod waits). scheduler: pods are made at once, up to `total` GPUs, and wait for room; for "
        "clusters that grow by themselves. kueue: like scheduler, through the queue `queue`.",
    )
    total: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="scheduler and kueue: GPUs that may be asked for at once. Raise it with the cluster's "
        "largest size; beyond it people wait in the broker's own queue, which knows who is next.",
    )
    queue: Name | None = Field(default=None, description="kueue: name of the LocalQueue.")
    requests: dict[str, str] = Field(
        default_factory=dict, description="CPU and memory of a worker, instead of the general ones."
    )
    limits: dict[str, str] = Field(
        default_factory=dict, description="Its limits, instead of the general ones."
    )
    runtime_class: Name | None = Field(default=None, description="runtimeClassName of workers (nvidia).")

    @field_validator("requests", "limits")
    @classmethod
    def _amounts(cls, amounts: dict[str, str]) -> dict[str, str]:
        return check_amounts(amounts)

    @model_validator(mode="after")
    def _fits(self) -> KubernetesPool:
        if self.admission != "counted" and self.total is None:
            raise ValueError(f"total is needed with admission {self.admission}")
        if self.admission == "counted" and self.total is not None:
            raise ValueError("total is for admission scheduler and kueue: counted looks at the nodes")
        if (self.admission == "kueue") != (self.queue is not None):
            raise ValueError("queue belongs to admission kueue, and is needed there")
        return self


class KubernetesSettings(_Model):
    """Section ``kubernetes`` of the broker's settings."""

    namespace: Label = Field(description="The broker's own namespace: its leader Lease lives there.")
    users_namespace: Label | None = Field(
        description="Where servers and workers are. null: in namespaces of people's own, with the label "
        "gpuhub.io/hub and the broker's namespace as its value."
    )
    kubeconfig: Path | None = Field(default=None, description="File; null: the pod's own account.")
    lease_name: Name = Field(
        default="gpuhub-broker", description="The Lease that says which broker leads, if there are two."
    )
    fence_seconds: int = Field(
        default=60,
        ge=5,
        le=3600,
        description="Seconds that a worker without its server goes on. The same number as the hub's. 60 "
        "covers a restart of the network; raise it where that takes longer; lower it to free lost GPUs "
        "sooner.",
    )
    priority_class: Name | None = Field(default=None, description="priorityClassName of workers.")
    home_access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = Field(
        default="ReadWriteMany",
        description="How homes can be mounted. ReadWriteOnce puts each worker on its server's node.",
    )
    environment: dict[str, str] = Field(default_factory=dict, description="Added to every worker's.")
    requests: dict[str, str] = Field(
        default_factory=dict, description='CPU and memory of a worker: {"cpu": "2", "memory": "8Gi"}.'
    )
    limits: dict[str, str] = Field(default_factory=dict, description="Its limits.")
    pools: list[KubernetesPool] = Field(
        default_factory=list,
        description="The kinds of GPU on offer. Empty: one for each product that the nodes' labels name.",
    )
    telemetry: Literal["agent", "dcgm", "none"] = Field(
        default="agent", description="Who measures: the node agent, NVIDIA's exporter by Prometheus, nobody."
    )
    agent_service_account: Label = Field(default="agent", description="The node agents' account.")
    agent_audience: str = Field(default="gpuhub-broker", description="For whom their tokens are made.")
    prometheus_url: str | None = Field(default=None, description="dcgm: http://prometheus:9090")
    prometheus_token_file: Path | None = Field(default=None, description="dcgm: a bearer token.")
    prometheus_ca_file: Path | None = Field(default=None, description="dcgm: who signs its certificate.")

    @property
    def agent_username(self) -> str:
        """Whom a node agent's token must belong to."""
        return f"system:serviceaccount:{self.namespace}:{self.agent_service_account}"

    @field_validator("requests", "limits")
    @classmethod
    def _amounts(cls, amounts: dict[str, str]) -> dict[str, str]:
        return check_amounts(amounts)

    @field_validator("environment")
    @classmethod
    def _not_ours(cls, environment: dict[str, str]) -> dict[str, str]:
        for name in environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} cannot be the name of a variable")
            if name.startswith(OURS):
                raise ValueError(f"{name} is set by the lease or the device plugin")
        return environment

    @model_validator(mode="after")
    def _pools_differ(self) -> KubernetesSettings:
        names = [pool.name for pool in self.pools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two pools are called {name}")
        for one in self.pools:
            for other in self.pools:
                if one is other or one.resource != other.resource:
                    continue
                if one.node_selector.items() <= other.node_selector.items():
                    raise ValueError(
                        f"pools {one.name} and {other.name} would count the same GPUs: give both a "
                        "node_selector that the other does not match"
                    )
        if self.telemetry == "dcgm" and not self.prometheus_url:
            raise ValueError("telemetry dcgm needs prometheus_url")
        return self


def check_amounts(amounts: dict[str, str]) -> dict[str, str]:
    """Return ``amounts``. Raises `ValueError` for what Kubernetes would refuse, and for GPUs."""
    for name, amount in amounts.items():
        if name not in RESERVED and not name.startswith("hugepages-"):
            raise ValueError(f"{name}: only cpu, memory, ephemeral-storage and hugepages go here")
        if not QUANTITY.fullmatch(amount):
            raise ValueError(f"{name}: {amount!r} is no amount (2, 500m, 8Gi)")
    return amounts
