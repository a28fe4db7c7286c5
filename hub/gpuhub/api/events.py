"""``GET events``: one's own leases, the pools and live utilisation, as they change."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from gpuhub.api.auth import CallerHere, ManagerHere
from gpuhub.api.parts import PartsHere
from gpuhub.api.stream import HEADERS, stream
from gpulease.errors import BadRequest, NotAllowed, NotSignedIn

MAX_EVENT_ID = 2**63 - 1

router = APIRouter(tags=["events"])


@router.get(
    "/events",
    operation_id="followEvents",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`text/event-stream`; each frame's data is `{at, data}`, its event the `kind`.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}},
        }
    },
)
async def follow_events(
    who: CallerHere,
    actor: ManagerHere,
    here: PartsHere,
    last_event_id: Annotated[
        str | None, Header(description="The last id that was seen: everything after it comes again.")
    ] = None,
    everyone: Annotated[bool, Query(description="Operators: everybody's leases.")] = False,
) -> StreamingResponse:
    """Follow events (Server-Sent Events). `reset`: too much was missed, read the present state by GET."""
    if everyone and not actor.may_admin:
        raise NotAllowed("Only operators may follow everybody's leases.")
    last = _event_id(last_event_id)
    here.readers.check_room(actor.user)

    async def check() -> None:
        identity = await here.tokens.identify(who.token, afresh=True)
        if identity.user != actor.user or not (identity.may_manage or identity.may_admin):
            raise NotSignedIn("The token is not valid any more.")

    async def body() -> AsyncIterator[str]:
        with here.readers.place(actor.user):
            events = here.broker.events(actor, last, everyone=everyone)
            async with contextlib.aclosing(stream(events, check=check, closing=here.closing)) as frames:
                async for text in frames:
                    yield text

    return StreamingResponse(body(), media_type="text/event-stream", headers=HEADERS)


def _event_id(said: str | None) -> int | None:
    if said is None or said == "":
        return None
    if not said.isascii() or not said.isdigit() or int(said[:20]) > MAX_EVENT_ID:
        raise BadRequest("Last-Event-ID must be a number that an earlier event of this stream carried.")
    return int(said)
