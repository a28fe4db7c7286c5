"""The hub's own pages in gpuhub's dress: templates, style, and the live line about GPUs.

Two handlers are added to the hub: its style and scripts, and ``GET /hub/gpuhub/now``, which asks the
broker on behalf of the person who looks, with the hub's token, so that the choice page can say what is
free before that person has any server or token. A broker that does not answer is said quietly.
"""

from __future__ import annotations

from gettext import NullTranslations, translation
from pathlib import Path
from typing import Any

import httpx
from jupyterhub.handlers.base import BaseHandler
from tornado import web

HERE = Path(__file__).parent
LOCALE = HERE.parent / "locale"
ASK_SECONDS = 3.0


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


def apply(c: Any, *, broker_url: str, token: str, language: str = "en") -> None:
    """Put templates, texts and handlers into the hub's configuration."""
    texts: NullTranslations = translation("gpuhub", str(LOCALE), [language], fallback=True)
    c.JupyterHub.template_paths = [str(HERE / "templates")]
    c.JupyterHub.jinja_environment_options = {"extensions": ["jinja2.ext.i18n"]}
    c.JupyterHub.template_vars = {
        # The hub calls what can be called, with the user, and gives the templates what comes back.
        "gettext": lambda user: texts.gettext,
        "ngettext": lambda user: texts.ngettext,
    }
    c.JupyterHub.extra_handlers = [
        (r"/gpuhub/now", NowHandler, {"broker_url": broker_url, "token": token}),
        (r"/gpuhub/static/(.*)", web.StaticFileHandler, {"path": str(HERE / "static")}),
    ]
