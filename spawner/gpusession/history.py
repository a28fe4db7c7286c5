"""One's past leases, for ``gpu history``: the broker's answer, passed on to the terminal.

Exists because a terminal holds no token for the broker; only its server does.
"""

from __future__ import annotations

from typing import Any, Protocol

from gpulease import errors
from gpulease.models import LeaseList
from gpusession.api import Resource


class Past(Protocol):
    """What is needed of `gpulease.client.BrokerClient`."""

    async def leases(self, *, ended: bool = False, before: str | None = None) -> LeaseList: ...


class HistoryResource(Resource):
    """Registered on the private socket only."""

    def initialize(self, session: Any, activity: Any, past: Past | None = None) -> None:
        super().initialize(session, activity)
        self._past = past

    async def get(self) -> None:
        try:
            if self._past is None:
                raise errors.Unavailable("This server is not connected to a GPU service.")
            before = self.get_query_argument("before", "")
            self.answer(await self._past.leases(ended=True, before=before or None))
        except errors.GpuhubError as error:
            self.refuse(error)
