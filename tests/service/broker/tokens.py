"""Tokens of the hub, as people and servers have them."""

from __future__ import annotations

from typing import Any

from gpulease.scopes import MANAGE_LEASES
from tests.person import Person

PUBLIC_KEY = "ssh-ed25519 " + "A" * 68


async def new_token(person: Person, **wishes: Any) -> dict[str, Any]:
    """A further token: ``{"id", "token", …}``. ``wishes``: the hub's ``expires_in``, ``scopes``."""
    answer: dict[str, Any] = await person.hub_api("POST", f"users/{person.name}/tokens", json=wishes)
    return answer


async def server_token(person: Person, server: str = "") -> str:
    """A token with exactly the scopes that the hub gives to a server."""
    scopes = [
        f"users:activity!user={person.name}",
        f"access:servers!server={person.name}/{server}",
        f"{MANAGE_LEASES}!user={person.name}",
    ]
    return str((await new_token(person, scopes=scopes))["token"])
