"""Who a hub token belongs to and what it may do here, read from the hub's own answer (``/hub/api/user``).

Pure. Promises: a token counts for what its scopes say and no more; a server's token acts for that one
server; a filter that is not understood gives no right.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gpulease.scopes import ADMIN_LEASES, MANAGE_LEASES

SERVER_ACCESS = "access:servers"


class HubSays(BaseModel):
    """The part of the hub's user (or service) model that matters here."""

    model_config = ConfigDict(extra="ignore")

    kind: str = "user"
    name: str = Field(min_length=1)
    admin: bool = False
    groups: list[str] = Field(default_factory=list)
    scopes: list[str] = Field(default_factory=list)


class Identity(BaseModel):
    """A caller."""

    model_config = ConfigDict(frozen=True)

    user: str
    kind: str
    groups: tuple[str, ...]
    server: str | None
    """The one server that this token belongs to; None: a person's or a service's own token."""
    may_manage: bool
    may_admin: bool


def read_identity(raw: Any) -> Identity:
    """Return the caller behind the hub's answer ``raw``. Raises `ValueError` for one that makes no sense."""
    said = HubSays.model_validate(raw)
    scopes = frozenset(said.scopes)
    server = _server(said.name, scopes) if said.kind == "user" else None
    may_admin = ADMIN_LEASES in scopes and server is None
    return Identity(
        user=said.name,
        kind=said.kind,
        groups=tuple(said.groups),
        server=server,
        # A service has no leases of its own, and must not get those of a person of the same name.
        may_manage=said.kind == "user" and _covers(scopes, MANAGE_LEASES, said.name),
        may_admin=may_admin,
    )


def _covers(scopes: frozenset[str], scope: str, user: str) -> bool:
    return scope in scopes or f"{scope}!user={user}" in scopes


def _server(user: str, scopes: frozenset[str]) -> str | None:
    """The server of a server's token: the only one it may enter."""
    if _covers(scopes, SERVER_ACCESS, user):
        return None
    mark = f"{SERVER_ACCESS}!server={user}/"
    own = [scope.removeprefix(mark) for scope in scopes if scope.startswith(mark)]
    return own[0] if len(own) == 1 else None
