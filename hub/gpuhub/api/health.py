"""``GET health`` says that the process answers, nothing else; ``GET metrics`` is for operators' tokens."""

from __future__ import annotations

from fastapi import APIRouter, Response

from gpuhub.api.auth import OperatorHere
from gpuhub.api.parts import PartsHere

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(include_in_schema=False)


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/metrics")
async def metrics(_actor: OperatorHere, here: PartsHere) -> Response:
    return Response(here.metrics(), media_type=EXPOSITION)
