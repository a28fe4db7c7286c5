"""``GET pools``: what is on offer now, as one person sees it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from gpuhub.api.auth import ManagerHere
from gpuhub.api.parts import PartsHere
from gpulease.errors import NotAllowed
from gpulease.models import PoolList

router = APIRouter(tags=["pools"])


class PoolsSeen(PoolList):
    """What is on offer, and how much of it one person may hold."""

    gpus_at_once: float | None = Field(
        None, description="GPUs that the person may hold at once. None: no limit, or the caller is no person."
    )


@router.get("/pools", operation_id="getPools")
async def get_pools(
    actor: ManagerHere,
    here: PartsHere,
    user: Annotated[
        str | None,
        Query(max_length=255, description="Operators: as this person sees it."),
    ] = None,
) -> PoolsSeen:
    """The kinds of GPU on offer: how many work, how many are free, how many leases wait."""
    if user is not None and user != actor.user:
        if not actor.may_admin:
            raise NotAllowed("Only operators may look at somebody else's limits.")
        actor = await here.people.actor(user)
    pools = await here.broker.pools(actor)
    return PoolsSeen(pools=pools, gpus_at_once=await _gpus_at_once(here, actor))


async def _gpus_at_once(here: PartsHere, actor: ManagerHere) -> float | None:
    if not actor.may_manage:
        return None
    me = await here.broker.me(actor)
    return next((quota.allowed for quota in me.quotas if quota.name == "gpus_at_once"), None)
