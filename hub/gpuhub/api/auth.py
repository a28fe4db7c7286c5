"""Who calls, by a hub token in the ``Authorization`` header or by the browser's sign-in.

Promises: a person's own leases need the scope ``custom:gpuhub:manage:leases``, everybody's need
``custom:gpuhub:admin:leases``; a server's token acts for that server alone; with a cookie, whatever
changes something must come from one of our own pages and prove it (no other site can make a browser do
it). A token in an address is never looked at: addresses are logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security.utils import get_authorization_scheme_param

from gpuhub.api.identity import Identity
from gpuhub.api.parts import Parts, parts
from gpuhub.broker.actors import Actor
from gpulease.errors import NotAllowed, NotSignedIn
from gpulease.scopes import ADMIN_LEASES, MANAGE_LEASES

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
SCHEMES = frozenset({"bearer", "token"})
PROOF_HEADER = "X-XSRFToken"


@dataclass(frozen=True)
class Caller:
    """Somebody whom the hub knows."""

    identity: Identity
    token: str

    @property
    def actor(self) -> Actor:
        who = self.identity
        return Actor(
            user=who.user,
            admin=who.may_admin,
            groups=who.groups,
            server=who.server,
            may_manage=who.may_manage,
            may_admin=who.may_admin,
        )


async def caller(request: Request) -> Caller:
    """Return who calls. Raises `NotSignedIn`, `NotAllowed`, `Unavailable`."""
    here = parts(request)
    header = request.headers.get("authorization")
    if header is not None:
        scheme, token = get_authorization_scheme_param(header)
        if scheme.lower() not in SCHEMES:
            raise NotSignedIn("The Authorization header must be 'Bearer' and a token of the hub.")
        return Caller(await here.tokens.identify(token), token)
    cookie = here.signin.token(request)
    if cookie is None:
        raise NotSignedIn("No token was sent.")
    if request.method not in SAFE:
        check_own_page(request, here, cookie, request.headers.get(PROOF_HEADER, ""))
    return Caller(await here.tokens.identify(cookie), cookie)


def check_own_page(request: Request, here: Parts, token: str, proof: str) -> None:
    """Refuse what another site makes a browser send. Raises `NotAllowed`."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = site == "same-origin" if site is not None else _is_own(origin, request)
    if not own or not here.signin.is_proof(token, proof):
        raise NotAllowed(
            "This request did not come from the page itself.", hint="Reload the page, then try again."
        )


def _is_own(origin: str | None, request: Request) -> bool:
    host = request.headers.get("host", "")
    return bool(origin and host) and urlsplit(origin or "").netloc == host


async def manager(who: Annotated[Caller, Depends(caller)]) -> Actor:
    """Somebody who may have leases, or see everybody's."""
    if not who.identity.may_manage and not who.identity.may_admin:
        raise NotAllowed(
            "This token may not use GPU leases.",
            hint=f"It needs the scope {MANAGE_LEASES}.",
            scope=MANAGE_LEASES,
        )
    return who.actor


async def operator(who: Annotated[Caller, Depends(caller)]) -> Actor:
    """Somebody who may see everybody's leases."""
    if not who.identity.may_admin:
        raise NotAllowed(
            "This is for operators.", hint=f"It needs the scope {ADMIN_LEASES}.", scope=ADMIN_LEASES
        )
    return who.actor


CallerHere = Annotated[Caller, Depends(caller)]
ManagerHere = Annotated[Actor, Depends(manager)]
OperatorHere = Annotated[Actor, Depends(operator)]
