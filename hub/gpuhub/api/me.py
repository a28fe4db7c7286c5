"""``GET me``: the person behind the token, his limits, pools and leases."""

from __future__ import annotations

from fastapi import APIRouter

from gpuhub.api.auth import ManagerHere
from gpuhub.api.parts import PartsHere
from gpulease.models import Me

router = APIRouter(tags=["people"])


@router.get("/me", operation_id="getMe")
async def get_me(actor: ManagerHere, here: PartsHere) -> Me:
    """The token's owner: what he may use, how much of it he uses, and his leases that have not ended."""
    return await here.broker.me(actor)
