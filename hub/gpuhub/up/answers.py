"""Whether each part answers: what `gpuhub up` waits for before it says that it is ready."""

from __future__ import annotations

import httpx

from gpuhub.up.plan import Plan
from gpulease.errors import GpuhubError
from gpuspawner.launcher.client import LauncherClient


class Answers:
    """Asks the parts. Every method returns None when all is well, else what is missing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._http = httpx.AsyncClient(timeout=3.0, trust_env=False)
        self._launcher = LauncherClient(plan.launcher_socket, patience_seconds=0.0, answer_seconds=3.0)

    async def close(self) -> None:
        await self._http.aclose()

    async def launcher(self) -> str | None:
        try:
            await self._launcher.list(processes=False)
        except GpuhubError as error:
            return error.message
        return None

    async def proxy(self) -> str | None:
        headers = {"Authorization": f"token {self._plan.secrets.proxy_token}"}
        return await self._get(f"{self._plan.proxy_api}/api/routes", headers)

    async def hub(self) -> str | None:
        # Itself first: asked through the proxy, one that is not there yet fills the proxy's log.
        return await self._get(f"{self._plan.hub_api}/", {}) or await self._get(
            f"{self._plan.inner_url}hub/api/", {}
        )

    async def broker(self) -> str | None:
        headers = {"Authorization": f"Bearer {self._plan.secrets.admin_token}"}
        return await self._get(f"{self._plan.inner_url}services/gpu/api/v1/pools", headers)

    async def sync_routes(self) -> str | None:
        """Tell the hub to give a fresh proxy its routes."""
        headers = {"Authorization": f"token {self._plan.secrets.admin_token}"}
        try:
            answer = await self._http.post(f"{self._plan.hub_api}/proxy", headers=headers)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return None if answer.status_code < 400 else f"status {answer.status_code}"

    async def _get(self, url: str, headers: dict[str, str]) -> str | None:
        try:
            answer = await self._http.get(url, headers=headers)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return None if answer.status_code == 200 else f"status {answer.status_code}"
