"""The port between broker and whatever measures GPUs.

A device that is missing from an answer is a device about which nothing is known; nobody is
reclaimed on the ground of missing telemetry (rule 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ProcessSample:
    """One process on a device."""

    pid: int
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Sample:
    """One look at one device."""

    device_id: str
    at: float
    """UNIX seconds."""
    utilisation_percent: float
    memory_bytes: int
    memory_total_bytes: int
    processes: tuple[ProcessSample, ...] = ()
    simulated: bool = False


class Telemetry(Protocol):
    """Something that measures GPUs."""

    async def sample(self) -> Sequence[Sample]:
        """Return one sample per device that answers. Never raises: no answer is an empty one."""
