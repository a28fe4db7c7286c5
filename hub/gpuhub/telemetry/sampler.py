"""Looks at the GPUs every two seconds, whatever happens, and keeps the last minutes in memory.

Idleness is decided from what stands here, so it never invents anything: a look that failed leaves
a gap, and a device that stopped answering is shown by the age of its last sample.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gpuhub.telemetry.base import Sample, Telemetry

SAMPLE_SECONDS = 2.0
"""Idleness wants one sample per 5 s at least; two give a chart that feels live and a spare one."""
KEPT = 450
"""Samples kept per device: 15 minutes."""

log = logging.getLogger(__name__)


class Sampler:
    """Samples of the last minutes, by device."""

    def __init__(
        self, telemetry: Telemetry, *, every_seconds: float = SAMPLE_SECONDS, kept: int = KEPT
    ) -> None:
        self._telemetry = telemetry
        self._every_seconds = every_seconds
        self._kept = kept
        self._rings: dict[str, deque[Sample]] = {}
        self._listeners: list[Callable[[Sequence[Sample]], None]] = []

    def listen(self, listener: Callable[[Sequence[Sample]], None]) -> None:
        """Call ``listener`` with the samples of each look. It must be quick."""
        self._listeners.append(listener)

    def latest(self) -> Mapping[str, Sample]:
        """Return the last sample of each device; look at its age before using it."""
        return {device: ring[-1] for device, ring in self._rings.items()}

    def history(self, device_id: str, since: float = 0.0) -> list[Sample]:
        """Return the kept samples of a device after ``since`` (UNIX seconds), oldest first."""
        return [sample for sample in self._rings.get(device_id, ()) if sample.at > since]

    async def look(self) -> Sequence[Sample]:
        """Look once."""
        samples = await self._telemetry.sample()
        for sample in samples:
            self._rings.setdefault(sample.device_id, deque(maxlen=self._kept)).append(sample)
        for listener in self._listeners:
            listener(samples)
        return samples

    async def run(self) -> None:
        """Look again and again until cancelled, at a steady pace: a slow look is not made up for."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                await self.look()
            except Exception:  # the port promises not to raise; if it does, the next look may do
                log.exception("a look at the GPUs failed")
            due = max(due + self._every_seconds, loop.time())
            await asyncio.sleep(due - loop.time())
