"""Which servers nobody uses: jupyterhub-idle-culler's arbiter, with the server's own word.

An open tab alone is not activity: the proxy counts every byte of one, so the hub's ``last_activity``
says little. The server itself is asked (``gpuhub/api/v1/activity``): a busy kernel, a terminal with
something running, a command on a GPU or a lease keep it; otherwise its own last activity counts.
A server that cannot be asked (another image, a hiccup) is judged by the hub's word alone.

The culler is a process of its own; `apply` sets it up from a JSON file that the environment names.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gpuhub.settings import CULLER_VARIABLE, CullerSettings

log = logging.getLogger(__name__)

ASK_SECONDS = 10.0
TOKEN_VARIABLE = "JUPYTERHUB_API_TOKEN"


def apply(c: Any, settings: CullerSettings | None = None) -> None:
    """Set the culler up. Without ``settings`` the file named by the environment is read."""
    if settings is None:
        settings = CullerSettings.model_validate_json(Path(os.environ[CULLER_VARIABLE]).read_text())
    if settings.api_token:
        os.environ[TOKEN_VARIABLE] = settings.api_token  # the only place where the culler looks for it
    c.IdleCuller.url = settings.hub_api_url
    c.IdleCuller.timeout = settings.after_seconds
    c.IdleCuller.cull_every = settings.every_seconds
    c.IdleCuller.max_age = settings.max_age_seconds
    c.IdleCuller.cull_arbiter_hook = cull_arbiter_hook(settings.proxy_url)


@dataclass(frozen=True)
class Activity:
    """What a server says of itself."""

    busy_kernels: int = 0
    busy_terminals: int = 0
    commands: int = 0
    lease: bool = False
    last_activity: datetime | None = None

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Activity:
        """Read the server's answer. Raises `ValueError` or `TypeError` for one that makes no sense."""
        last = raw.get("last_activity")
        moment = None if last is None else datetime.fromisoformat(str(last))
        if moment is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return cls(
            int(raw.get("busy_kernels") or 0),
            int(raw.get("busy_terminals") or 0),
            int(raw.get("commands") or 0),
            bool(raw.get("lease")),
            moment,
        )

    @property
    def at_work(self) -> bool:
        return bool(self.busy_kernels or self.busy_terminals or self.commands or self.lease)


def is_idle(
    activity: Activity | None,
    inactive: timedelta | None,
    limit: timedelta,
    started: datetime | None,
    now: datetime,
) -> bool:
    """Whether the server is to be stopped. ``inactive`` is the hub's word, None: it does not know."""
    if activity is None:
        return inactive is not None and inactive >= limit
    if activity.at_work:
        return False
    if started is not None and now - started < limit:
        return False
    if activity.last_activity is None:
        return inactive is not None and inactive >= limit
    return now - activity.last_activity >= limit


def cull_arbiter_hook(
    url: str,
    *,
    token: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Callable[..., Awaitable[bool]]:
    """Return the hook. ``url``: the proxy's public side; ``token``: with ``access:servers``.

    Without ``token`` the culler's own (environment) is taken.
    """

    async def hook(
        *, inactive: timedelta | None, inactive_limit: int, server: dict[str, Any], **_: Any
    ) -> bool:
        key = os.environ[TOKEN_VARIABLE] if token is None else token
        activity = await ask(url, str(server.get("url", "")), key, transport)
        idle = is_idle(
            activity, inactive, timedelta(seconds=inactive_limit), _moment(server.get("started")), now()
        )
        if idle:
            log.info("%s is idle", server.get("url"))
        return idle

    return hook


async def ask(
    url: str, server_url: str, token: str, transport: httpx.AsyncBaseTransport | None = None
) -> Activity | None:
    """Return what the server at ``server_url`` says of itself; None when it cannot be asked."""
    address = f"{url.rstrip('/')}{server_url}gpuhub/api/v1/activity?no_track_activity=1"
    async with httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False, transport=transport) as http:
        try:
            answer = await http.get(address, headers={"Authorization": f"token {token}"})
            if answer.status_code != 200:
                log.warning("%s answers %s when asked for its activity", server_url, answer.status_code)
                return None
            return Activity.read(answer.json())
        except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s cannot be asked for its activity: %s", server_url, error)
            return None


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
