"""Wakes those who listen, and keeps the last events at hand so that most of them never ask the store."""

from __future__ import annotations

import asyncio
from collections import deque

from gpuhub.store import Store, StoredEvent

KEPT = 2000
BATCH = 500


class Feed:
    """The newest events in commit order, and counters of what has no id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[StoredEvent] = deque(maxlen=KEPT)
        self.head = 0
        """The id of the newest event."""
        self.looks = 0
        """Grows with every look at the GPUs."""
        self._news = asyncio.Event()

    def publish(self, event: StoredEvent) -> None:
        """Take an event that was just committed."""
        self._recent.append(event)
        self.head = max(self.head, event.id)
        self.wake()

    def looked(self) -> None:
        """The GPUs were looked at."""
        self.looks += 1
        self.wake()

    def wake(self) -> None:
        """Something that has no id changed: pools, places, usage."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set at the next change. Take it before reading, wait for it afterwards: nothing is missed."""
        return self._news

    async def after(self, event_id: int, user: str | None) -> tuple[list[StoredEvent], int]:
        """Return the events after ``event_id`` and the id up to which nothing was left out."""
        upto = self.head
        if event_id >= upto:
            return [], event_id
        if self._recent and self._recent[0].id <= event_id + 1:
            found = [
                event
                for event in self._recent
                if event.id > event_id and (user is None or event.user == user)
            ]
            return found, upto
        stored = await self._store.events.after(event_id, user=user, limit=BATCH)
        found = [event for event in stored if event.id <= upto]
        if len(stored) == BATCH and found:
            return found, found[-1].id
        return found, upto
