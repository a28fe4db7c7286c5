"""What keeps this server from being idle: for the culler, not for people.

An open tab alone is not activity. Busy kernels, terminals whose shell has something running,
commands on the worker and a lease that has not ended are.
"""

from __future__ import annotations

import logging
from typing import Any

import psutil

from gpusession.session import Session

log = logging.getLogger(__name__)


class Activity:
    """Looks at the Jupyter server's managers; must be asked on their loop."""

    def __init__(self, session: Session, kernel_manager: Any, settings: dict[str, Any]) -> None:
        self._session, self._kernels, self._settings = session, kernel_manager, settings

    async def report(self) -> dict[str, Any]:
        """Return ``{"busy_kernels", "busy_terminals", "commands", "lease", "last_activity"}``.

        The first three are counts; ``lease`` is its state or null; the time is ISO 8601.
        """
        status = await self._session.call(self._session.status())
        busy = {kernel.id for kernel in status.kernels if kernel.busy or _under_way(kernel.move)}
        moments = [self._session.last_activity]
        for kernel_id in self._kernels.list_kernel_ids():
            kernel = self._kernels.get_kernel(kernel_id)
            if getattr(kernel, "execution_state", "") == "busy":
                busy.add(kernel_id)
            if getattr(kernel, "last_activity", None) is not None:
                moments.append(kernel.last_activity)
        return {
            "busy_kernels": len(busy),
            "busy_terminals": self._busy_terminals(),
            "commands": len(status.commands),
            "lease": status.lease.state.value if status.lease else None,
            "last_activity": max(moments).isoformat(),
        }

    def _busy_terminals(self) -> int:
        terminals = getattr(self._settings.get("terminal_manager"), "terminals", None) or {}
        return sum(_has_children(terminal) for terminal in terminals.values())


def _under_way(move: Any) -> bool:
    return move is not None and move.ended_at is None


def _has_children(terminal: Any) -> bool:
    try:
        return bool(psutil.Process(terminal.ptyproc.pid).children())
    except (psutil.Error, AttributeError):
        return False
