"""The hub's own pages in gpuhub's dress: templates, style, and the live line about GPUs.

Two handlers are added to the hub: its style and scripts, and ``GET /hub/gpuhub/now``, which asks the
broker on behalf of the person who looks, with the hub's token, so that the choice page can say what is
free before that person has any server or token. A broker that does not answer is said quietly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from jinja2 import pass_context
from jinja2.runtime import Context
from jupyterhub.handlers.base import BaseHandler
from tornado import web

from gpuspawner import language
from gpuspawner.language import N_

HERE = Path(__file__).parent
ASK_SECONDS = 3.0
HUBS_OWN = (N_("Invalid username or password"),)
"""Sentences of JupyterHub that our pages show."""


class NowHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub is untyped
    """What the choice page's live line shows, as JSON."""

    def initialize(self, broker_url: str, token: str) -> None:
        super().initialize()
        self._broker_url, self._token = broker_url, token

    @web.authenticated
    async def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(await ask_now(self._broker_url, self._token, self.current_user.name))


async def ask_now(
    broker_url: str, token: str, user: str, transport: httpx.AsyncBaseTransport | None = None
) -> dict[str, Any]:
    """Return ``{"ok", "pools", "allowed"}``; ``ok`` false where the broker does not answer."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False, transport=transport) as http:
            answer = await http.get(f"{broker_url}/api/v1/pools", params={"user": user}, headers=headers)
            answer.raise_for_status()
            body = answer.json()
            pools = body["pools"]
            return {
                "ok": True,
                "pools": pools,
                "free": sum(int(pool["free"]) for pool in pools),
                "total": sum(int(pool["total"]) for pool in pools),
                "waiting": sum(int(pool["waiting"]) for pool in pools),
                "simulated": any(pool.get("simulated") for pool in pools),
                "allowed": body.get("gpus_at_once"),
            }
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {"ok": False}


def apply(c: Any, *, broker_url: str, token: str) -> None:
    """Put templates, texts and handlers into the hub's configuration."""
    c.JupyterHub.template_paths = [str(HERE / "templates")]
    c.JupyterHub.jinja_environment_options = {"extensions": ["jinja2.ext.i18n"]}
    c.JupyterHub.template_vars = {
        # The hub calls what can be called, with the user, and gives the templates what comes back.
        "gettext": lambda user: _in_the_language_asked_for(language.spoken),
        "ngettext": lambda user: _in_the_language_asked_for(language.ngettext),
        "language": lambda user: _in_the_language_asked_for(language.language),
    }
    c.JupyterHub.extra_handlers = [
        (r"/gpuhub/now", NowHandler, {"broker_url": broker_url, "token": token}),
        (r"/gpuhub/static/(.*)", web.StaticFileHandler, {"path": str(HERE / "static")}),
    ]


def _in_the_language_asked_for(say: Callable[..., str]) -> Callable[..., str]:
    """Return ``say`` for a template: it speaks the language of the browser that the page is for.

    The hub tells templates nothing of the request, but gives them a method of its handler.
    """

    @pass_context
    def said(context: Context, *texts: Any) -> str:
        handler: web.RequestHandler = context["static_url"].__self__
        language.listen_to(handler.request.headers.get("Accept-Language"))
        return say(*texts)

    return said
