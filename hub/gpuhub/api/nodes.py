"""``POST nodes/{node}/samples``: what a node's agent says about its GPUs. Not for people, and not in the
interface's description.
"""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Request

from gpuhub.api.agents import Agents, bearer
from gpuhub.api.parts import PartsHere
from gpuhub.telemetry.pushed import ForeignDevice
from gpuhub.telemetry.report import NodeName, NodeReport
from gpulease.errors import Conflict, NotFound

router = APIRouter(include_in_schema=False)

log = structlog.get_logger(__name__)


async def admitted(here: PartsHere, request: Request, node: Annotated[NodeName, Path()]) -> Agents:
    """The agents' door, once the caller has proved that it speaks for ``node``."""
    if here.agents is None:
        raise NotFound(
            "This gpuhub takes no reports of node agents.",
            hint="It looks at its GPUs another way: see the setting telemetry.",
        )
    await here.agents.gate.admit(bearer(request), node)
    return here.agents


@router.post("/nodes/{node}/samples", status_code=204)
async def take_samples(
    agents: Annotated[Agents, Depends(admitted)],
    node: Annotated[NodeName, Path()],
    report: NodeReport,
) -> None:
    """Take a report whole, or refuse it whole."""
    try:
        news = agents.telemetry.take(node, report)
    except ForeignDevice as error:
        log.warning("a node's report was refused", node=node, why=str(error))
        raise Conflict(
            f"The report of {node} was refused: {error}.",
            hint="Two nodes name the same GPU, or one of them lies: look at both agents' logs.",
        ) from error
    if news is not None:
        log.warning("a node cannot look at everything", node=node, why=news)
