"""A GpuKubeSpawner with its settings, for tests: a person, a hub's address, a list of environments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes_asyncio.config import kube_config
from kubespawner import clients
from traitlets.config import Config

from gpuhub.config import servers
from gpuhub.settings import HubSettings
from gpuspawner.kube import GpuKubeSpawner

ENVIRONMENTS: list[dict[str, Any]] = [
    {"name": "base", "title": "Data science", "image": "localhost/gpuhub-base:dev"},
    {
        "name": "torch",
        "title": "PyTorch",
        "image": "localhost/gpuhub-torch:dev",
        "versions": {"PyTorch": "2.9"},
        "editors": ["lab", "vscode"],
        "sizes": ["large"],
        "groups": ["vision"],
        "node_selector": {"disk": "fast"},
        "tolerations": [{"key": "torch", "operator": "Exists"}],
    },
]


@dataclass
class Person:
    """What a spawner asks of a hub's user."""

    name: str = "ann"
    id: int = 7
    admin: bool = False
    url: str = "/user/ann/"
    groups: list[Any] = field(default_factory=list)

    @property
    def escaped_name(self) -> str:
        return self.name


def settings(folder: Path, **kubernetes: Any) -> HubSettings:
    """A cluster's hub settings; ``kubernetes`` are further settings of that section."""
    file = folder / "environments.yaml"
    file.write_text(yaml.safe_dump({"environments": kubernetes.pop("environments", ENVIRONMENTS)}))
    return HubSettings.model_validate(
        {
            "bind_url": "http://0.0.0.0:8000/",
            "hub_bind_url": "http://0.0.0.0:8081",
            "hub_connect_url": "http://hub.gpuhub.svc:8081",
            "database_url": "sqlite://",
            "cookie_secret": "ab" * 32,
            "proxy_api_url": "http://proxy-api:8001",
            "proxy_token": "p",
            "broker_url": "http://broker.gpuhub.svc:8090",
            "broker_token": "b",
            "culler_token": "c",
            "admin_token": "a",
            "kubernetes": {"namespace": "gpuhub-users", "environments_file": file, **kubernetes},
        }
    )


def spawner(
    config: HubSettings | Config,
    *,
    person: Person | None = None,
    server: str = "",
    groups: tuple[str, ...] = (),
    options: Any = None,
    **traits: Any,
) -> GpuKubeSpawner:
    """A spawner of ``person``'s server, as the hub makes it. Wants a running event loop."""
    person = person or Person()
    person.groups = [SimpleNamespace(name=name) for name in groups]
    if isinstance(config, HubSettings):
        c = Config()
        servers.apply(c, config)
        config = c
    hub = SimpleNamespace(
        api_url="http://hub.gpuhub.svc:8081/hub/api",
        base_url="/hub/",
        url="http://hub.gpuhub.svc:8081/hub/",
        public_host="",
        server=SimpleNamespace(base_url="/hub/"),
    )
    made = GpuKubeSpawner(
        config=config,
        user=person,
        hub=hub,
        orm_spawner=SimpleNamespace(name=server, server=None, oauth_client=None, user_options=None),
        api_token="the-token-of-this-start",
        oauth_client_id="jupyterhub-user-ann",
        **traits,
    )
    made.user_options = options or {}
    return made


async def chosen(made: GpuKubeSpawner, options: Any) -> GpuKubeSpawner:
    """The hub's steps before a start: options, then the hook. Raises `Refusal`."""
    made.user_options = options
    await made._run_apply_user_options(options)
    made.run_pre_spawn_hook()
    return made


async def started(made: GpuKubeSpawner, options: Any = None) -> str:
    """Start it; returns its address."""
    await chosen(made, options or {})
    url: str = await asyncio.wait_for(made.start(), 30)
    return url


async def manifest(made: GpuKubeSpawner) -> dict[str, Any]:
    """The pod as it is sent to the cluster."""
    return await made.finish_pod(made, await made.get_pod_manifest())


@asynccontextmanager
async def spawning(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let KubeSpawner use this cluster, and end what it leaves running."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    clients.load_config.cache_clear()
    yield
    await GpuKubeSpawner._stop_all_reflectors()
    for client in list(clients._client_cache.values()):
        await client.api_client.close()
    clients._client_cache.clear()
    for task in asyncio.all_tasks():
        if "close_client_task" in repr(task.get_coro()):
            task.cancel()
