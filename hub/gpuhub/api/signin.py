"""Signing in with the hub by OAuth, for pages: who has a browser and no token.

Promises: the hub's token never reaches a script (its cookie is HttpOnly, and encrypted); an answer of the
hub counts only in the browser that asked (state); people are sent on to our own pages alone. The cookie's
key is made from the service's own token, so cookies outlive a restart.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

import httpx
from cryptography.fernet import Fernet, InvalidToken
from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from gpulease.errors import BadRequest, NotAllowed, Unavailable
from gpulease.scopes import SERVICE_NAME

SESSION_COOKIE = "gpuhub-session"
STATE_COOKIE = "gpuhub-signin"
STATE_SECONDS = 600
SESSION_SECONDS = 14 * 24 * 3600
"""As long as the hub's own OAuth tokens; the hub may end one earlier, and then it counts no more."""
ASK_SECONDS = 10.0


class SignIn:
    """The OAuth client ``service-gpu``. ``random`` makes a state; ``transport`` is httpx's own port."""

    def __init__(
        self,
        hub_api_url: str,
        service_token: str,
        *,
        random: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        path = urlsplit(hub_api_url).path.rstrip("/")
        base = path.removesuffix("/hub/api") if path.endswith("/hub/api") else ""
        self.prefix = f"{base}/services/{SERVICE_NAME}/"
        self._authorize_path = f"{path}/oauth2/authorize"
        self._token_url = f"{hub_api_url.rstrip('/')}/oauth2/token"
        self._service_token, self._random, self._transport = service_token, random, transport
        self._key = hashlib.sha256(b"gpuhub cookies\0" + service_token.encode()).digest()
        self._box = Fernet(base64.urlsafe_b64encode(self._key))

    @property
    def client_id(self) -> str:
        return f"service-{SERVICE_NAME}"

    # --- the session

    def token(self, request: Request) -> str | None:
        """Return the hub token of the browser's session, if it has one."""
        return self._open(request.cookies.get(SESSION_COOKIE), SESSION_SECONDS)

    def proof(self, token: str) -> str:
        """What a page of ours must send back with every change: no other site can know it."""
        return hmac.new(self._key, b"proof\0" + token.encode(), hashlib.sha256).hexdigest()

    def is_proof(self, token: str, said: str) -> bool:
        return hmac.compare_digest(self.proof(token).encode(), said.encode())

    # --- the way there and back

    def begin(self, request: Request, to: str) -> Response:
        """Send the browser to the hub; afterwards it comes to ``to``."""
        state = self._random()
        where = {
            "client_id": self.client_id,
            "redirect_uri": f"{self.prefix}oauth_callback",
            "response_type": "code",
            "state": state,
        }
        response = RedirectResponse(f"{self._authorize_path}?{urlencode(where)}", status_code=302)
        kept = json.dumps({"state": state, "to": self.own_page(to)})
        self._set(request, response, STATE_COOKIE, kept, STATE_SECONDS)
        return response

    async def finish(self, request: Request) -> Response:
        """Take the hub's answer. Raises `BadRequest`, `NotAllowed`, `Unavailable`."""
        query = request.query_params
        kept = self._open(request.cookies.get(STATE_COOKIE), STATE_SECONDS)
        asked = json.loads(kept) if kept else {}
        if not asked or not hmac.compare_digest(asked["state"].encode(), query.get("state", "").encode()):
            raise BadRequest("This sign-in was not begun here, or too long ago.", hint="Open the page again.")
        if "code" not in query:
            raise NotAllowed("The hub did not let you in.", hint="Ask your operator for the right.")
        token = await self._redeem(query["code"])
        response = RedirectResponse(self.own_page(asked["to"]), status_code=302)
        self._set(request, response, SESSION_COOKIE, token, None)
        response.delete_cookie(STATE_COOKIE, path=self.prefix)
        return response

    def own_page(self, to: str) -> str:
        """Return ``to`` where it is a page of ours, else our first page."""
        clean = to.startswith(self.prefix) and not any(c in to for c in "\\\r\n\t") and ".." not in to
        return to if clean else self.prefix

    async def _redeem(self, code: str) -> str:
        form = {
            "client_id": self.client_id,
            "client_secret": self._service_token,
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": f"{self.prefix}oauth_callback",
        }
        try:
            async with httpx.AsyncClient(
                timeout=ASK_SECONDS, trust_env=False, transport=self._transport
            ) as http:
                response = await http.post(self._token_url, data=form)
        except httpx.HTTPError as error:
            raise Unavailable("The hub does not answer at the moment.") from error
        if response.status_code >= 500:
            raise Unavailable("The hub does not answer at the moment.")
        try:
            return str(response.json()["access_token"])
        except (ValueError, KeyError, TypeError):
            raise NotAllowed("The hub did not confirm the sign-in.", hint="Open the page again.") from None

    # --- cookies

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: int | None) -> None:
        sealed = self._box.encrypt(value.encode()).decode()
        encrypted = request.headers.get("x-forwarded-proto", request.url.scheme).split(",")[0].strip()
        response.set_cookie(
            name,
            sealed,
            max_age=seconds,
            path=self.prefix,
            secure=encrypted == "https",
            httponly=True,
            samesite="lax",
        )

    def _open(self, sealed: str | None, seconds: int) -> str | None:
        if not sealed:
            return None
        try:
            return self._box.decrypt(sealed.encode(), ttl=seconds).decode()
        except (InvalidToken, ValueError):
            return None
