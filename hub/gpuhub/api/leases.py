"""``leases``: ask for GPUs, see, keep, release."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from gpuhub.api.auth import ManagerHere
from gpuhub.api.parts import PartsHere
from gpulease.errors import BadRequest, NotAllowed, NotFound
from gpulease.models import (
    Acknowledge,
    CellHint,
    IdempotencyKey,
    Lease,
    LeaseList,
    LeaseRequest,
    LinkKey,
    UsageSeries,
)

PAGE = 50
LONGEST_PAGE = 200
MAX_ID = 64

router = APIRouter(tags=["leases"])

LeaseId = Annotated[str, Path(description="The lease's id.")]


@router.post(
    "/leases",
    operation_id="requestLease",
    status_code=201,
    responses={200: {"model": Lease, "description": "It existed already: this is how it stands."}},
)
async def request_lease(
    actor: ManagerHere,
    here: PartsHere,
    request: LeaseRequest,
    response: Response,
    idempotency_key: Annotated[
        IdempotencyKey | None,
        Header(description="A request that is sent again with the same key never makes a second lease."),
    ] = None,
) -> Lease:
    """Ask for GPUs: granted at once, or queued with a position.

    A lease that already serves this server and pool is answered as it is. A refusal names the limit, how
    much of it is used and when it frees up.
    """
    if idempotency_key and request.idempotency_key and idempotency_key != request.idempotency_key:
        raise BadRequest("The header and the body name different idempotency keys.")
    if not actor.may_manage:
        raise NotAllowed("A service has no GPU leases of its own.", hint="Ask with a person's token.")
    key = idempotency_key or request.idempotency_key
    lease, created = await here.broker.request(actor, request, key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{here.signin.prefix}api/v1/leases/{lease.id}"
    return lease


@router.get("/leases", operation_id="listLeases")
async def list_leases(
    actor: ManagerHere,
    here: PartsHere,
    ended: Annotated[bool, Query(description="Also those of the past.")] = False,
    before: Annotated[
        str | None, Query(max_length=MAX_ID, description="The `next` of the page before this one.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="Leases on one page.")] = PAGE,
    everyone: Annotated[bool, Query(description="Operators: everybody's leases.")] = False,
) -> LeaseList:
    """One's own leases, newest first."""
    if everyone and not actor.may_admin:
        raise NotAllowed("Only operators may list everybody's leases.")
    if before is not None:
        before = known_form(before)
    return await here.broker.leases(actor, ended=ended, before=before, limit=limit, everyone=everyone)


@router.get("/leases/{lease_id}", operation_id="getLease")
async def get_lease(actor: ManagerHere, here: PartsHere, lease_id: LeaseId) -> Lease:
    """One lease as it stands now."""
    return await here.broker.lease(actor, known_form(lease_id))


@router.delete("/leases/{lease_id}", operation_id="releaseLease")
async def release_lease(actor: ManagerHere, here: PartsHere, lease_id: LeaseId) -> Lease:
    """Release it: what runs on the GPU is saved and moved back first. A queued one is cancelled."""
    return await here.broker.release(actor, known_form(lease_id))


@router.post("/leases/{lease_id}/keep", operation_id="keepLease")
async def keep_lease(actor: ManagerHere, here: PartsHere, lease_id: LeaseId) -> Lease:
    """Answer the warning that the GPU is idle, within the policy's bounds."""
    return await here.broker.keep(actor, known_form(lease_id))


@router.put("/leases/{lease_id}/cell", operation_id="hintCell", status_code=204)
async def hint_cell(actor: ManagerHere, here: PartsHere, lease_id: LeaseId, hint: CellHint) -> None:
    """The server's word that a cell runs there: while nobody waits, it is not cut for a silent GPU."""
    await here.broker.hint_cell(actor, known_form(lease_id), hint.running)


@router.put("/leases/{lease_id}/key", operation_id="setLeaseKey")
async def set_key(actor: ManagerHere, here: PartsHere, lease_id: LeaseId, key: LinkKey) -> Lease:
    """Give the public key with which the owner's server will reach the worker."""
    return await here.broker.set_key(actor, known_form(lease_id), key.public_key)


@router.post("/leases/{lease_id}/ack", operation_id="acknowledgeLease")
async def acknowledge(actor: ManagerHere, here: PartsHere, lease_id: LeaseId, done: Acknowledge) -> Lease:
    """The server's word that everything worth saving has left the worker."""
    return await here.broker.acknowledge(actor, known_form(lease_id), done)


@router.get("/leases/{lease_id}/usage", operation_id="getLeaseUsage")
async def usage(actor: ManagerHere, here: PartsHere, lease_id: LeaseId) -> UsageSeries:
    """Utilisation and memory of the last ten minutes."""
    return await here.broker.usage(actor, known_form(lease_id))


def known_form(lease_id: str) -> str:
    """What cannot be an id is not looked up."""
    if len(lease_id) > MAX_ID or not all(c.isascii() and (c.isalnum() or c in "-_") for c in lease_id):
        raise NotFound("There is no such lease.")
    return lease_id
