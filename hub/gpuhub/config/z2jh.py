"""gpuhub inside Zero to JupyterHub: that chart sets the hub up, this adds what is ours.

In the chart's values (helm-values/z2jh.yaml has them whole)::

    custom:
      gpuhub: {broker_url: "http://broker:8090", …}
    hub:
      services: {gpu: {}, culler: {}, gpuhub-operator: {}}     # the chart makes their tokens
      extraConfig:
        gpuhub: |
          from gpuhub.config import z2jh
          z2jh(c, get_config("custom"))

Promises: an unknown or missing setting ends the hub at its start with its name; what the chart set up
(storage, images' pull secrets, scheduling, other services and roles) stays; the spawner and the pages are
ours, and so are the addresses and tokens of our three services.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from gpuhub.config import rights, servers
from gpuhub.pages import hub as pages
from gpuhub.secretfiles import SecretFiles
from gpuhub.settings import Home
from gpulease.scopes import CUSTOM_SCOPES, SERVICE_NAME
from gpuspawner.images import SIZES, Size

SECRETS = Path("/usr/local/etc/jupyterhub/secret")
"""Where the chart mounts its Secret in the hub."""


class Z2jhSettings(SecretFiles):
    """``custom.gpuhub`` of the chart's values."""

    broker_url: str = Field(description="The broker, before /services/gpu: http://broker.NAMESPACE.svc:8090")
    broker_token: str = Field("", repr=False, description="Empty: what the chart made for the service gpu.")
    culler_token: str = Field("", repr=False, description="Empty: … for the service culler.")
    admin_token: str = Field("", repr=False, description="Empty: … for the service gpuhub-operator.")
    admins: list[str] = Field(default_factory=list, description="Who may see and end everybody's leases.")
    environments_file: Path = Field(description="The list of environments (gpuspawner.images).")
    sizes: list[Size] = Field(default=list(SIZES), description="Sizes on offer; [] leaves it to the chart.")
    home_path: str = Field(
        Home().mount_path, description="The chart's singleuser.storage.homeMountPath, where servers start."
    )
    fence_seconds: int = Field(60, gt=0)
    save_seconds: float = Field(180.0, ge=1)


def apply(c: Any, custom: Mapping[str, Any], secrets: Path = SECRETS) -> None:
    """Add gpuhub to the chart's configuration. Raises `pydantic.ValidationError`, `ValueError`."""
    raw = custom.get("gpuhub")
    if not isinstance(raw, Mapping):
        raise ValueError("custom.gpuhub is missing: gpuhub's own settings stand there")
    read = dict(raw)
    for name, service in (
        ("broker_token", SERVICE_NAME),
        ("culler_token", rights.CULLER),
        ("admin_token", rights.OPERATOR),
    ):
        if not read.get(name) and not read.get(f"{name}_file"):
            read[f"{name}_file"] = str(secrets / f"hub.services.{service}.apiToken")
    settings = Z2jhSettings.model_validate(read)
    tokens = rights.Tokens(settings.broker_token, settings.culler_token, settings.admin_token)
    c.JupyterHub.custom_scopes = {name: dict(entry) for name, entry in CUSTOM_SCOPES.items()} | dict(
        c.JupyterHub.get("custom_scopes") or {}
    )
    _add(c.JupyterHub, "load_roles", rights.roles(settings.admins))
    _add(c.JupyterHub, "services", rights.services(settings.broker_url, tokens))
    c.JupyterHub.spawner_class = servers.KUBERNETES
    spawner = c.GpuKubeSpawner
    servers.choices(spawner, settings)
    servers.session(spawner, settings.broker_url, settings.fence_seconds, settings.save_seconds)
    spawner.home_path = settings.home_path
    pages.apply(c, broker_url=f"{settings.broker_url}/services/{SERVICE_NAME}", token=settings.admin_token)


def _add(section: Any, name: str, ours: list[dict[str, Any]]) -> None:
    """Put ours among what is there. Entries of the same name are one: lists joined, the rest ours."""
    merged = {entry["name"]: dict(entry) for entry in section.get(name) or []}
    for entry in ours:
        old = merged.get(entry["name"], {})
        lists = {
            key: [*(one for one in old.get(key) or [] if one not in value), *value]
            for key, value in entry.items()
            if isinstance(value, list)
        }
        merged[entry["name"]] = {**old, **entry, **lists}
    section[name] = list(merged.values())
