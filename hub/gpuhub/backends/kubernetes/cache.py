"""What the API server knows of one kind of object, kept up to date by listening to it.

List once, in pages, then watch; when the watch ends, go on from the last version heard; only when that
version is too old (410) list anew. Nothing is polled. Of each object only what ``keep`` returns is held,
so that a cluster of any size fits. The cache says how fresh it is: whoever decides on it must ask
`age_seconds` first, since a cache that lost touch looks like a world in which nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from gpuhub.backends.kubernetes.api import Api, ApiError, Change, Kind, Object

PAGE = 500
"""Objects per page of a list: some MB at most."""
WATCH_SECONDS = 40
"""How long one watch lasts. Short, since the end of each proves that the server is there; resuming costs
one request. Bookmarks keep the version young where nothing happens."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
SHORT_WATCH_SECONDS = 1.0
"""A watch that ends sooner did no good: the next one waits like after a failure."""
FAILURES_BEFORE_LIST = 5
"""After so many failures in a row the version itself is suspected (a restored etcd): list anew."""

T = TypeVar("T")
Key = tuple[str, str]
"""(namespace, name)"""

log = logging.getLogger(__name__)


class Cache(Generic[T]):
    """Objects of one kind by (namespace, name). Belongs to one event loop.

    ``keep`` returns what is held of an object, None for one that does not matter. ``on_gone`` is told
    what was held last of an object that is there no more. ``random`` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        api: Api,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        keep: Callable[[Object], T | None],
        on_gone: Callable[[Key, T], None] | None = None,
        clock: Callable[[], float],
        random: Callable[[], float],
        watch_seconds: int = WATCH_SECONDS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._api, self._kind, self._namespace = api, kind, namespace
        self._labels, self._fields, self._keep, self._on_gone = labels, fields, keep, on_gone
        self._clock, self._random = clock, random
        self._watch_seconds, self._first_pause_seconds = watch_seconds, first_pause_seconds
        self._items: dict[Key, T] = {}
        self._versions: dict[Key, int] = {}
        self._version = ""
        self._whole = False
        """List without pages: the last paged list took longer than the server keeps its versions."""
        self._open = False
        self._in_touch_at = -math.inf
        self._listed = asyncio.Event()

    @property
    def items(self) -> Mapping[Key, T]:
        return self._items

    def age_seconds(self) -> float:
        """Return how long ago it was in touch: 0 while it listens, infinite before its first list."""
        if not self._listed.is_set():
            return math.inf
        return 0.0 if self._open else self._clock() - self._in_touch_at

    async def wait(self) -> None:
        """Wait for the first list."""
        await self._listed.wait()

    def put(self, found: Object) -> None:
        """Take the server's answer to a write of ours, unless the watch knows better already."""
        key, version = _key(found), _number(found)
        if version <= max(_as_number(self._version), self._versions.get(key, 0)):
            return
        self._take(key, version, found)

    def drop(self, key: Key) -> None:
        """Take out what we have just removed ourselves; nobody is told."""
        self._items.pop(key, None)
        self._versions.pop(key, None)

    async def run(self) -> None:
        """Listen until cancelled, whatever the server does."""
        failures = 0
        while True:
            began = self._clock()
            try:
                if not self._version:
                    await self._list()
                began = self._clock()
                await self._watch()
                failures = failures + 1 if self._clock() - began < SHORT_WATCH_SECONDS else 0
            except ApiError as error:
                listened = self._open and self._clock() - began >= SHORT_WATCH_SECONDS
                failures = 1 if listened else failures + 1
                self._judge(error, failures)
            except Exception:  # an object that nobody foresaw must not silence the cache for good
                failures += 1
                self._version = ""
                log.exception("listening to %s failed", self._kind.plural)
            finally:
                self._open = False
            if failures:
                await asyncio.sleep(self._pause(failures))

    def _judge(self, error: ApiError, failures: int) -> None:
        if error.status == 410:
            self._version = ""
            log.info("%s: the version heard last is too old; listing anew", self._kind.plural)
            return
        if not error.away or failures % FAILURES_BEFORE_LIST == 0:
            self._version = ""
        if failures == 1 or failures % 20 == 0:
            log.warning("%s cannot be listened to (%d): %s", self._kind.plural, failures, error)

    def _pause(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, self._first_pause_seconds * 2.0 ** min(failures - 1, 10))
        return float(longest * (0.5 + 0.5 * self._random()))

    async def _list(self) -> None:
        found: dict[Key, T] = {}
        versions: dict[Key, int] = {}
        after = ""
        while True:
            try:
                page = await self._api.list(
                    self._kind,
                    self._namespace,
                    labels=self._labels,
                    fields=self._fields,
                    limit=0 if self._whole else PAGE,
                    after=after,
                )
            except ApiError as error:
                self._whole = self._whole or (error.status == 410 and bool(after))
                raise
            for item in page.items:
                kept = self._keep(item)
                if kept is not None:
                    key = _key(item)
                    found[key], versions[key] = kept, _number(item)
            after = page.more
            if not after:
                break
        self._whole = False
        version = _as_number(page.version)
        for key, number in self._versions.items():
            if number > version:  # written by us after the list was made
                found[key], versions[key] = self._items[key], number
        gone = {key: item for key, item in self._items.items() if key not in found}
        self._items, self._versions, self._version = found, versions, page.version
        self._in_touch_at = self._clock()
        self._listed.set()
        for key, item in gone.items():
            self._tell_gone(key, item)

    async def _watch(self) -> None:
        stream = self._api.watch(
            self._kind,
            self._namespace,
            labels=self._labels,
            fields=self._fields,
            version=self._version,
            seconds=self._watch_seconds,
        )
        async for change in stream:
            self._in_touch_at = self._clock()
            if change.what == "OPENED":
                self._open = True
            else:
                self._hear(change)

    def _hear(self, change: Change) -> None:
        version = str((change.object.get("metadata") or {}).get("resourceVersion", ""))
        self._version = version or self._version
        if change.what == "BOOKMARK":
            return
        key = _key(change.object)
        if change.what == "DELETED":
            kept = self._keep(change.object)
            known = self._items.pop(key, None)
            self._versions.pop(key, None)
            last = kept if kept is not None else known
            if known is not None and last is not None:
                self._tell_gone(key, last)
            return
        self._take(key, _number(change.object), change.object)

    def _take(self, key: Key, version: int, found: Object) -> None:
        kept = self._keep(found)
        if kept is not None:
            self._items[key], self._versions[key] = kept, version
            return
        known = self._items.pop(key, None)
        self._versions.pop(key, None)
        if known is not None:
            self._tell_gone(key, known)

    def _tell_gone(self, key: Key, last: T) -> None:
        if self._on_gone is not None:
            self._on_gone(key, last)


def _key(found: Object) -> Key:
    metadata = found.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _number(found: Object) -> int:
    return _as_number(str((found.get("metadata") or {}).get("resourceVersion", "")))


def _as_number(version: str) -> int:
    """Versions are compared only to keep an answer of ours from undoing what a watch said later."""
    return int(version) if version.isdecimal() else 0
