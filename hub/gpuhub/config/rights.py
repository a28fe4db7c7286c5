"""Who may do what: gpuhub's scopes, the roles of people, servers and services, and the services."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True)
class Tokens:
    """What the services sign in with."""

    broker: str = field(repr=False)
    culler: str = field(repr=False)
    operator: str = field(repr=False)


def apply(c: Any, *, broker_url: str, tokens: Tokens, admins: Sequence[str]) -> None:
    """Set scopes, roles and services."""
    c.JupyterHub.custom_scopes = {name: dict(entry) for name, entry in CUSTOM_SCOPES.items()}
    c.JupyterHub.load_roles = roles(admins)
    c.JupyterHub.services = services(broker_url, tokens)


def roles(admins: Sequence[str]) -> list[dict[str, Any]]:
    """Return the roles, as ``load_roles`` takes them."""
    return [
        {"name": "user", "description": "One's own server and one's own GPU leases", "scopes": USER_SCOPES},
        {"name": "server", "description": "A server: its owner's GPU leases", "scopes": SERVER_SCOPES},
        # The hub's own admin role cannot be given further scopes.
        {
            "name": "gpuhub-admin",
            "description": "Everybody's GPU leases",
            "scopes": [ADMIN_LEASES],
            "users": list(admins),
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
            "description": "gpuhub's own token for the hub's pages and for operators' scripts",
            "scopes": OPERATOR_SCOPES,
            "services": [OPERATOR],
        },
    ]


def services(broker_url: str, tokens: Tokens) -> list[dict[str, Any]]:
    """Return the services, as ``services`` takes them."""
    return [
        {
            "name": SERVICE_NAME,
            "url": broker_url,
            "api_token": tokens.broker,
            "oauth_client_id": f"service-{SERVICE_NAME}",
            "oauth_no_confirm": True,
            "oauth_client_allowed_scopes": [f"{MANAGE_LEASES}!user"],
            "display": False,
        },
        {"name": CULLER, "api_token": tokens.culler, "display": False},
        {"name": OPERATOR, "api_token": tokens.operator, "display": False},
    ]
