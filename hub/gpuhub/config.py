"""JupyterHub as gpuhub needs it: scopes and roles, the GPU service, spawner, pages, proxy.

`apply` takes a traitlets config object and `HubSettings` (written by `gpuhub up`); everything it does
can be overridden by the operator's own file, which comes last (``--config``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from traitlets.config import Config, PyFileConfigLoader

from gpuhub.pages import hub as pages
from gpuhub.settings import SETTINGS_VARIABLE, HubSettings
from gpulease.scopes import ADMIN_LEASES, CUSTOM_SCOPES, MANAGE_LEASES, SERVICE_NAME

CULLER, OPERATOR = "culler", "gpuhub-operator"

USER_SCOPES = ["self", f"{MANAGE_LEASES}!user", f"access:services!service={SERVICE_NAME}"]
SERVER_SCOPES = ["users:activity!user", "access:servers!server", f"{MANAGE_LEASES}!user"]
BROKER_SCOPES = ["read:users", "list:users", "read:servers", "read:services", "read:hub"]
CULLER_SCOPES = ["list:users", "read:users:activity", "read:servers", "delete:servers", "access:servers"]
OPERATOR_SCOPES = [
    "admin-ui",
    "admin:users",
    "admin:servers",
    "admin:services",
    "admin:groups",
    "shares",
    "tokens",
    "list:services",
    "read:services",
    "read:hub",
    "read:roles",
    "read:metrics",
    "proxy",
    "shutdown",
    "access:services",
    "access:servers",
    ADMIN_LEASES,
]


def apply(c: Config, settings: HubSettings | None = None) -> None:
    """Set everything up. Without ``settings`` the file named by the environment is read."""
    if settings is None:
        settings = HubSettings.model_validate_json(Path(os.environ[SETTINGS_VARIABLE]).read_text())
    _hub(c, settings)
    _people(c, settings)
    _scopes(c, settings)
    _services(c, settings)
    _spawner(c, settings)
    pages.apply(c, broker_url=f"{settings.broker_url}/services/{SERVICE_NAME}", token=settings.admin_token)
    if settings.extra_config is not None:
        c.merge(_own(settings.extra_config))


def _hub(c: Any, settings: HubSettings) -> None:
    c.JupyterHub.bind_url = settings.public_url
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{settings.hub_port}"
    c.JupyterHub.db_url = f"sqlite:///{settings.data}/jupyterhub.sqlite"
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret = bytes.fromhex(settings.cookie_secret)
    # Servers, proxy and hub end and start apart from each other.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = settings.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = settings.proxy_token
    c.JupyterHub.last_activity_interval = 60
    c.JupyterHub.shutdown_on_logout = False
    c.JupyterHub.redirect_to_server = False
    c.JupyterHub.default_url = _landing
    c.JupyterHub.log_level = "INFO"


def _landing(handler: Any) -> str:
    """Where people arrive: at the choice of a server, which leads on to one that runs already."""
    return f"{handler.hub.base_url}spawn"


def _people(c: Any, settings: HubSettings) -> None:
    c.Authenticator.admin_users = set(settings.admins)
    if settings.auth == "shared-password":
        c.JupyterHub.authenticator_class = "shared-password"
        c.SharedPasswordAuthenticator.user_password = settings.password
        c.SharedPasswordAuthenticator.admin_password = settings.admin_password
        c.Authenticator.allow_all = True
    elif settings.auth == "pam":
        c.JupyterHub.authenticator_class = "gpuhub.signin.LauncherAuthenticator"
        c.LauncherAuthenticator.launcher_socket = str(settings.launcher_socket)
    else:
        # Who may come in is the operator's word, in --config.
        c.JupyterHub.authenticator_class = settings.auth


def _scopes(c: Any, settings: HubSettings) -> None:
    c.JupyterHub.custom_scopes = {name: dict(entry) for name, entry in CUSTOM_SCOPES.items()}
    c.JupyterHub.load_roles = [
        {"name": "user", "description": "One's own server and one's own GPU leases", "scopes": USER_SCOPES},
        {"name": "server", "description": "A server: its owner's GPU leases", "scopes": SERVER_SCOPES},
        # The hub's own admin role cannot be given further scopes.
        {
            "name": "gpuhub-admin",
            "description": "Everybody's GPU leases",
            "scopes": [ADMIN_LEASES],
            "users": list(settings.admins),
        },
        {
            "name": "gpuhub-broker",
            "description": "Who somebody is, and whether a server runs",
            "scopes": BROKER_SCOPES,
            "services": [SERVICE_NAME],
        },
        {
            "name": "gpuhub-culler",
            "description": "Stops servers that nobody uses",
            "scopes": CULLER_SCOPES,
            "services": [CULLER],
        },
        {
            "name": "gpuhub-operator",
            "description": "The token of gpuhub's ready-file: an administrator",
            "scopes": OPERATOR_SCOPES,
            "services": [OPERATOR],
        },
    ]


def _services(c: Any, settings: HubSettings) -> None:
    c.JupyterHub.services = [
        {
            "name": SERVICE_NAME,
            "url": settings.broker_url,
            "api_token": settings.broker_token,
            "oauth_client_id": f"service-{SERVICE_NAME}",
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": [f"{MANAGE_LEASES}!user"],
            "display": False,
        },
        {"name": CULLER, "api_token": settings.culler_token, "display": False},
        {"name": OPERATOR, "api_token": settings.admin_token, "display": False},
    ]


def _spawner(c: Any, settings: HubSettings) -> None:
    c.JupyterHub.spawner_class = "gpuspawner.local.GpuLocalSpawner"
    spawner = c.GpuLocalSpawner
    spawner.launcher_socket = str(settings.launcher_socket)
    spawner.runtime_dir = str(settings.runtime)
    spawner.account_mode = settings.account_mode
    spawner.shared_uid = settings.shared_uid
    spawner.homes_dir = str(settings.data / "homes")
    spawner.accounts_book = str(settings.data / "accounts.json")
    spawner.environments_file = str(settings.data / "environments.yaml")
    spawner.own_prefix = str(settings.own_prefix)
    spawner.code_server = settings.code_server
    spawner.broker_url = f"{settings.broker_url}/services/{SERVICE_NAME}"
    spawner.fence_seconds = settings.fence_seconds
    spawner.save_seconds = settings.save_seconds
    spawner.allow_root = settings.allow_root
    # Nothing of the hub's own environment reaches a server but how dates and texts look.
    spawner.env_keep = ["LANG", "LC_ALL", "TZ"]
    spawner.start_timeout = 120
    spawner.http_timeout = 120
    spawner.poll_interval = 5
    c.JupyterHub.init_spawners_timeout = 5
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}


def _own(path: Path) -> Config:
    return PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
