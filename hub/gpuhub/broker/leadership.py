"""Which broker leads, should there be two by mistake: only that one reads, decides and writes.

Promises: whoever does not lead, or is not sure of it any more, does nothing; the answer of `leads` is
about this very moment (a process that was stopped for a while does not lead when it goes on).
"""

from __future__ import annotations

from typing import Protocol


class Leadership(Protocol):
    """One broker's claim. `acquire`, then `hold`; again after it was lost."""

    def leads(self) -> bool:
        """Whether this broker leads now."""

    async def acquire(self) -> None:
        """Wait until this broker leads."""

    async def hold(self) -> None:
        """Keep it; returns as soon as it is lost."""

    async def release(self) -> None:
        """Let another one lead at once. Never raises."""
