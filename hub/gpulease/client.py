"""The broker's client: for servers, for the ``gpu`` command, for scripts.

Raises the same error classes as the broker itself (`gpulease.errors`). Requests that change
something carry an idempotency key, so that a retry after a lost answer never makes two.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

from gpulease import errors
from gpulease.events import Decoder, Event
from gpulease.models import (
    Acknowledge,
    Lease,
    LeaseList,
    LeaseRequest,
    Me,
    Pool,
    PoolList,
    UsageSeries,
)

KEEPALIVE_SECONDS = 15.0
"""The broker writes a comment into every event stream at least this often."""


class BrokerClient:
    """Talks to a broker at ``url`` (ending before ``/api/v1``) with a hub token.

    ``transport`` is for tests and Unix sockets; it is httpx's own port.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_seconds,
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = await self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise errors.Unavailable("The GPU service does not answer at the moment.") from error
        if response.status_code >= 400:
            raise errors.from_dict(_json(response), status=response.status_code)
        data = _json(response)
        if data is None and response.status_code != 204:
            raise errors.Unavailable("The GPU service gave an answer that cannot be read.")
        return data

    async def me(self) -> Me:
        return Me.model_validate(await self._call("GET", "/me"))

    async def pools(self) -> list[Pool]:
        return PoolList.model_validate(await self._call("GET", "/pools")).pools

    async def leases(self, *, ended: bool = False, before: str | None = None) -> LeaseList:
        """One's own leases, newest first; with ``ended`` also those of the past."""
        params: dict[str, str] = {"ended": "true"} if ended else {}
        if before:
            params["before"] = before
        return LeaseList.model_validate(await self._call("GET", "/leases", params=params))

    async def request(self, request: LeaseRequest, idempotency_key: str) -> Lease:
        """Ask for GPUs. Raises LimitReached, UnknownPool, InvalidOption, KeyReused."""
        body = request.model_dump(mode="json", exclude_none=True)
        answer = await self._call("POST", "/leases", json=body, headers={"Idempotency-Key": idempotency_key})
        return Lease.model_validate(answer)

    async def lease(self, lease_id: str) -> Lease:
        return Lease.model_validate(await self._call("GET", f"/leases/{lease_id}"))

    async def set_key(self, lease_id: str, public_key: str) -> Lease:
        answer = await self._call("PUT", f"/leases/{lease_id}/key", json={"public_key": public_key})
        return Lease.model_validate(answer)

    async def keep(self, lease_id: str) -> Lease:
        """Answer a warning. Raises KeepUsedUp, LeaseOver."""
        return Lease.model_validate(await self._call("POST", f"/leases/{lease_id}/keep"))

    async def hint_cell(self, lease_id: str, running: bool) -> None:
        """Say whether a cell runs on the lease's worker; it is forgotten after a minute and a half."""
        await self._call("PUT", f"/leases/{lease_id}/cell", json={"running": running})

    async def release(self, lease_id: str) -> Lease:
        return Lease.model_validate(await self._call("DELETE", f"/leases/{lease_id}"))

    async def acknowledge(self, lease_id: str, done: Acknowledge) -> Lease:
        body = done.model_dump(mode="json", exclude_none=True)
        return Lease.model_validate(await self._call("POST", f"/leases/{lease_id}/ack", json=body))

    async def usage(self, lease_id: str) -> UsageSeries:
        """The samples of the last ten minutes."""
        return UsageSeries.model_validate(await self._call("GET", f"/leases/{lease_id}/usage"))

    async def events(self, last_event_id: int | None = None) -> AsyncIterator[Event]:
        """Follow one's own events. Raises Unavailable when the stream breaks: call again with the last id."""
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        decoder = Decoder()
        timeout = httpx.Timeout(10.0, read=KEEPALIVE_SECONDS * 3)
        try:
            async with self._http.stream("GET", "/events", headers=headers, timeout=timeout) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise errors.from_dict(_json(response), status=response.status_code)
                async for line in response.aiter_lines():
                    for event_id, kind, data in decoder.feed(line):
                        body = json.loads(data)
                        yield Event.model_validate(
                            {
                                "id": None if event_id is None else int(event_id),
                                "kind": kind,
                                "at": body.get("at") or datetime.now(UTC),
                                "data": body.get("data", {}),
                            }
                        )
        except (httpx.HTTPError, ValueError) as error:
            raise errors.Unavailable("The stream of events was cut.") from error
        raise errors.Unavailable("The stream of events ended.")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
