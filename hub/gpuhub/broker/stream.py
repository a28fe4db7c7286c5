"""One reader's stream of events: what is stored, in order and once; what is not, as it is now.

A reader that comes back with the last id that it saw gets what it missed, or a ``reset`` when that is
too long ago. Places in the queue, pools and usage are not stored: only their newest state counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from gpuhub.broker import view
from gpuhub.broker.board import Board
from gpuhub.broker.clock import Clock
from gpuhub.broker.feed import Feed
from gpuhub.core.lease import LeaseRecord
from gpuhub.store import Store, StoredEvent
from gpulease.events import Event
from gpulease.models import Lease, Pool, PoolList
from gpulease.states import Observed


class Stream:
    """Follows the leases of ``user`` (None: everybody's).

    ``shown`` renders a lease for the reader; ``sees_link`` says whose workers he may know the way to.
    """

    def __init__(
        self,
        store: Store,
        board: Board,
        feed: Feed,
        clock: Clock,
        *,
        user: str | None,
        pools: Callable[[], Awaitable[list[Pool]]],
        shown: Callable[[LeaseRecord], Lease],
        sees_link: Callable[[str, str], bool],
    ) -> None:
        self._store, self._board, self._feed, self._clock = store, board, feed, clock
        self._user, self._pools, self._shown, self._sees_link = user, pools, shown, sees_link
        self._sent_pools: list[Pool] | None = None
        self._sent_places: dict[str, tuple[int, str]] = {}
        self._sent_progress: dict[str, str] = {}
        self._sent_looks = feed.looks

    async def follow(self, last_event_id: int | None) -> AsyncIterator[Event]:
        """Yield events, endlessly."""
        news = self._feed.news
        forgotten, last = await self._store.events.bounds()
        reached = last
        if last_event_id is not None:
            if forgotten <= last_event_id <= last:
                reached = last_event_id
            else:
                yield Event(id=last, kind="reset", at=self._clock.now(), data={})
        while True:
            events, upto = await self._feed.after(reached, self._user)
            for event in events:
                yield self._stored(event)
            more = upto < self._feed.head
            reached = max(reached, upto)
            if more:
                continue
            async for passing in self._passing():
                yield passing
            await news.wait()
            news = self._feed.news

    def _stored(self, event: StoredEvent) -> Event:
        """Return a stored event; the newest of a live lease also says its place and use."""
        record = self._board.live.get(event.lease)
        if record is not None and record.revision == event.data.get("revision"):
            shown = self._shown(record)
            self._remember(shown)
            data: dict[str, Any] = shown.model_dump(mode="json")
        else:
            data = dict(event.data)
            if not self._sees_link(event.user, str(data.get("server", ""))):
                data["link"] = None
        return Event(id=event.id, kind="lease", at=event.at, data=data)

    async def _passing(self) -> AsyncIterator[Event]:
        pools = await self._pools()
        if pools != self._sent_pools:
            self._sent_pools = pools
            yield self._now("pools", PoolList(pools=pools).model_dump(mode="json"))
        for event in self._places():
            yield event
        if self._feed.looks != self._sent_looks:
            self._sent_looks = self._feed.looks
            for record in self._own():
                if record.observed is Observed.READY:
                    usage = view.usage(self._board.fresh_samples(record))
                    yield self._now(
                        "usage",
                        {
                            "lease": record.id,
                            "usage": None if usage is None else usage.model_dump(mode="json"),
                            "idle_seconds": self._board.silent_seconds(record.id),
                        },
                    )

    def _places(self) -> Iterator[Event]:
        """Yield those whose place, or what holds their start up, is another than was sent last."""
        queued = {record.id: record for record in self._own() if record.queued}
        self._sent_places = {key: sent for key, sent in self._sent_places.items() if key in queued}
        for record in queued.values():
            place = self._board.place(record)
            if place is not None and self._sent_places.get(record.id) != (place.place, place.message):
                shown = self._shown(record)
                self._remember(shown)
                yield self._now("lease", shown.model_dump(mode="json"))
        starting = [record for record in self._own() if record.observed is Observed.GRANTED]
        ids = {record.id for record in starting}
        self._sent_progress = {key: sent for key, sent in self._sent_progress.items() if key in ids}
        for record in starting:
            progress = self._board.progress(record)
            if self._sent_progress.get(record.id, "") != progress:
                self._sent_progress[record.id] = progress
                yield self._now("lease", self._shown(record).model_dump(mode="json"))

    def _remember(self, shown: Lease) -> None:
        if shown.position is not None:
            self._sent_places[shown.id] = (shown.position.place, shown.position.message)

    def _own(self) -> list[LeaseRecord]:
        return list(self._board.live.values()) if self._user is None else self._board.of_user(self._user)

    def _now(self, kind: Any, data: dict[str, Any]) -> Event:
        return Event(kind=kind, at=self._clock.now(), data=data)
