"""The numbers that count for one lease: the policy, after pool and groups were looked at.

A plain value, so that decisions can be tried with any numbers; `gpuhub.broker.settings` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What one person may do in one pool. Meaning, unit and reason of each: `PolicySettings`."""

    idle_after_seconds: int = 600
    warn_seconds: int = 300
    keep_minutes: int = 30
    keep_times: int = 2
    busy_cell_grace_minutes: int = 30
    longest_lease_hours: float | None = 12.0
    gpus_at_once: int | None = 1
    leases_at_once: int = 10
    gpu_hours_per_week: float | None = None
    ending_deadline_seconds: int = 120
    worker_grace_seconds: int = 60
    worker_start_seconds: int = 300
    key_wait_seconds: int = 180
    priority: str = "normal"
    rank: int = 0
    """The priority's rank: a higher one is served first."""
