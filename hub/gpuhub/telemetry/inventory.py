"""Which GPUs this machine offers: what ``--gpus`` means, for `gpuhub up`, the broker and the doctor.

``auto`` takes the real ones, or two simulated ones where no driver answers; ``none`` offers nothing;
``nvidia`` takes the real ones only; ``sim:N`` offers N simulated ones beside any hardware. Every
simulated GPU has the word in its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

SIMULATED_MEMORY_BYTES = 16 * 1024**3
MAX_SIMULATED = 64


@dataclass(frozen=True)
class Gpu:
    """One GPU that works now."""

    id: str
    index: int
    name: str
    memory_bytes: int
    simulated: bool
    files: tuple[str, ...] = ()
    """Device files that are this GPU's own."""


@dataclass(frozen=True)
class Inventory:
    """What the machine offers, and what to say about it."""

    gpus: tuple[Gpu, ...]
    simulated: bool = False
    problem: str | None = None
    """Why no real GPU was found, one sentence for an operator. None: they answer, or nobody asked."""
    driver: str | None = None
    shared_files: tuple[str, ...] = field(default=())

    def device_files(self) -> dict[str, list[str]]:
        """Return the launcher's setting ``devices``."""
        return {gpu.id: list(gpu.files) for gpu in self.gpus}


def simulated_gpus(count: int, memory_bytes: int = SIMULATED_MEMORY_BYTES) -> tuple[Gpu, ...]:
    """Return ``count`` GPUs that do not exist."""
    return tuple(
        Gpu(f"SIM-{index}", index, f"simulated GPU {index}", memory_bytes, simulated=True)
        for index in range(count)
    )


def simulated_count(choice: str) -> int | None:
    """Return N of ``sim:N``; None for any other choice. Raises `ValueError` for what means nothing."""
    if choice in ("auto", "none", "nvidia"):
        return None
    found = re.fullmatch(r"sim:([0-9]{1,3})", choice)
    if not found or int(found[1]) > MAX_SIMULATED:
        raise ValueError(f"--gpus: auto, none, nvidia or sim:N with N up to {MAX_SIMULATED}, not {choice!r}")
    return int(found[1])


def take_inventory(choice: str, real: Callable[[], Inventory]) -> Inventory:
    """Return what ``choice`` (of ``--gpus``) offers. ``real`` asks the driver; see `sources.real_gpus`."""
    count = simulated_count(choice)
    if count is not None:
        return Inventory(simulated_gpus(count), simulated=True)
    if choice == "none":
        return Inventory(())
    found = real()
    if found.gpus or choice == "nvidia":
        return found
    return Inventory(simulated_gpus(2), simulated=True, problem=found.problem)
