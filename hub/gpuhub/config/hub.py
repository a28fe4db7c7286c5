"""The hub itself: where it and its proxy listen, what it keeps where, and that its parts end apart."""

from __future__ import annotations

from typing import Any

from gpuhub.settings import HubSettings


def apply(c: Any, settings: HubSettings) -> None:
    """Set addresses, database, secrets and the proxy."""
    hub = c.JupyterHub
    hub.bind_url = settings.bind_url
    if settings.public_url:
        hub.public_url = settings.public_url
    hub.hub_bind_url = settings.hub_bind_url
    if settings.hub_connect_url:
        hub.hub_connect_url = settings.hub_connect_url
    hub.db_url = settings.database_url
    hub.upgrade_db = True
    hub.cookie_secret = bytes.fromhex(settings.cookie_secret)
    c.ConfigurableHTTPProxy.api_url = settings.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = settings.proxy_token
    c.ConfigurableHTTPProxy.should_start = False
    # Servers, proxy and hub end and start apart from each other.
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    hub.last_activity_interval = 60
    hub.shutdown_on_logout = False
    hub.redirect_to_server = False
    hub.default_url = landing
    hub.log_level = "INFO"
    hub.init_spawners_timeout = 5
    hub.tornado_settings = {"slow_spawn_timeout": 1}


def landing(handler: Any) -> str:
    """Where people arrive: at the choice of a server, which leads on to one that runs already."""
    return f"{handler.hub.base_url}spawn"
