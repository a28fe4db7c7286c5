"""JupyterHub as gpuhub needs it, on one machine, on a cluster, and inside Zero to JupyterHub.

`apply` takes a traitlets config object and `HubSettings`; everything it does can be overridden by the
operator's own file, which comes last (``extra_config``). The parts: `hub` (addresses, database, proxy),
`people` (who signs in and how), `rights` (scopes, roles, services), `servers` (the spawner). `z2jh.apply`
is the same for a hub that the chart of Zero to JupyterHub has set up.
"""

from __future__ import annotations

import os
from pathlib import Path

from traitlets.config import Config, PyFileConfigLoader

from gpuhub.config import hub, people, rights, servers
from gpuhub.config.z2jh import apply as z2jh
from gpuhub.pages import hub as pages
from gpuhub.settings import SETTINGS_VARIABLE, HubSettings
from gpulease.scopes import SERVICE_NAME

__all__ = ["apply", "z2jh"]


def apply(c: Config, settings: HubSettings | None = None) -> None:
    """Set everything up. Without ``settings`` the file named by the environment is read."""
    if settings is None:
        settings = HubSettings.model_validate_json(Path(os.environ[SETTINGS_VARIABLE]).read_text())
    hub.apply(c, settings)
    people.apply(c, settings)
    rights.apply(
        c,
        broker_url=settings.broker_url,
        tokens=rights.Tokens(settings.broker_token, settings.culler_token, settings.admin_token),
        admins=settings.admins,
    )
    servers.apply(c, settings)
    pages.apply(c, broker_url=f"{settings.broker_url}/services/{SERVICE_NAME}", token=settings.admin_token)
    if settings.extra_config is not None:
        c.merge(_own(settings.extra_config))


def _own(path: Path) -> Config:
    return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
