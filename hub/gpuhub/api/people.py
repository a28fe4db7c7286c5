"""Somebody as the hub knows him, for operators who ask on his behalf."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from gpuhub.broker.actors import Actor
from gpulease.errors import NotFound, Unavailable

ASK_SECONDS = 5.0


class People:
    """Asks the hub with the service's own token (scope ``read:users``)."""

    def __init__(
        self, hub_api_url: str, service_token: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=hub_api_url.rstrip("/"),
            headers={"Authorization": f"token {service_token}"},
            timeout=ASK_SECONDS,
            trust_env=False,
            transport=transport,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def actor(self, user: str) -> Actor:
        """Return ``user`` with his groups and no right but his own. Raises `NotFound`, `Unavailable`."""
        try:
            response = await self._http.get(f"/users/{quote(user, safe='')}")
            if response.status_code == 404:
                raise NotFound("There is no such person.")
            response.raise_for_status()
            body = response.json()
            return Actor(user=str(body["name"]), groups=tuple(str(group) for group in body["groups"]))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("The hub does not answer at the moment.") from error
