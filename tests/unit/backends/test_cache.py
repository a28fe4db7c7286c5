"""What the backend knows of the cluster: kept by listening, over whatever the API server does."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gpuhub.backends.kubernetes.api import PODS, ApiError, Change, Kind, Object, Page
from gpuhub.backends.kubernetes.cache import PAGE, Cache
from tests.launching import until
from tests.unit.backends.memorycluster import ClusterInMemory

Names = Cache[str]


def pod(name: str, **labels: str) -> Object:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "users", "labels": labels}, "spec": {}}


class Place:
    """A cluster, a cache of its pods, and who was told to be gone."""

    def __init__(
        self,
        cluster: ClusterInMemory,
        keep: Callable[[Object], str | None] | None = None,
        **times: Any,
    ) -> None:
        self.cluster = cluster
        self.gone: list[str] = []
        self.now = asyncio.get_running_loop().time
        self.cache: Names = Cache(
            cluster,
            PODS,
            namespace="users",
            keep=keep or (lambda found: found["metadata"]["labels"].get("value", "")),
            on_gone=lambda key, last: self.gone.append(f"{key[1]}={last}"),
            clock=self.now,
            random=lambda: 0.0,
            **{"first_pause_seconds": 0.02, **times},
        )

    async def holds(self, *names: str) -> None:
        async def same() -> bool:
            return sorted(key[1] for key in self.cache.items) == sorted(names)

        await until(same, f"the cache holds {', '.join(names) or 'nothing'}")

    async def is_open(self) -> None:
        async def opened() -> bool:
            return self.cache.age_seconds() == 0

        await until(opened, "the cache listens")

    def asked(self, verb: str) -> int:
        return self.cluster.asked.count((verb, "pods"))


@contextlib.asynccontextmanager
async def listening(place: Place) -> AsyncIterator[Place]:
    task = asyncio.create_task(place.cache.run())
    try:
        await asyncio.wait_for(place.cache.wait(), 20)
        yield place
        assert not task.done(), "the cache gave up"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    cluster = ClusterInMemory()
    await cluster.create(PODS, "users", pod("one", value="1"))
    await cluster.create(PODS, "other", pod("elsewhere"))
    async with listening(Place(cluster)) as found:
        await found.is_open()
        yield found


async def test_before_its_first_list_it_is_infinitely_old() -> None:
    place = Place(ClusterInMemory())
    assert place.cache.age_seconds() == math.inf


async def test_it_lists_once_and_then_only_listens(place: Place) -> None:
    for number in range(20):
        await place.cluster.create(PODS, "users", pod(f"p{number}"))
    await place.cluster.delete(PODS, "users", "one", grace_seconds=0)
    await place.holds(*(f"p{number}" for number in range(20)))
    assert place.gone == ["one=1"]
    assert (place.asked("list"), place.asked("watch")) == (1, 1)


async def test_a_changed_object_is_held_as_it_is_now(place: Place) -> None:
    await place.cluster.patch(PODS, "users", "one", {"metadata": {"labels": {"value": "2"}}})

    async def changed() -> bool:
        return place.cache.items["users", "one"] == "2"

    await until(changed, "the change is heard")


async def test_a_watch_that_ends_goes_on_from_the_last_version_heard(place: Place) -> None:
    for number in range(3):
        place.cluster.cut_watches()
        await place.cluster.create(PODS, "users", pod(f"p{number}"))
        await place.holds("one", *(f"p{n}" for n in range(number + 1)))
    assert place.asked("list") == 1


async def test_a_version_that_is_too_old_is_listed_anew_and_what_was_missed_is_told(place: Place) -> None:
    place.cluster.away = True
    place.cluster.cut_watches()
    place.cluster.away = False
    await place.cluster.delete(PODS, "users", "one", grace_seconds=0)
    await place.cluster.create(PODS, "users", pod("two"))
    place.cluster.forget_history()
    place.cluster.cut_watches()
    await place.holds("two")
    assert place.gone == ["one=1"]
    assert place.asked("list") == 2


async def test_a_410_is_listed_anew_at_once_and_listens_again(place: Place) -> None:
    for _ in range(3):
        await place.cluster.create(PODS, "other", pod(f"x{place.asked('list')}"))
        place.cluster.forget_history()
        place.cluster.cut_watches()
        lists = place.asked("list")

        async def listed(before: int = lists) -> bool:
            return place.asked("list") > before

        await until(listed, "it lists anew")
        await place.is_open()


async def test_bookmarks_keep_the_version_young_where_nothing_happens() -> None:
    """Other people's objects move the server's versions on; without bookmarks ours would grow too old."""
    cluster = ClusterInMemory()
    async with listening(Place(cluster, watch_seconds=1)) as place:
        await place.is_open()
        for number in range(50):
            await cluster.create(PODS, "other", pod(f"p{number}"))

        async def again() -> bool:
            return place.asked("watch") >= 2

        await until(again, "the first watch has ended by itself")
        cluster.forget_history()
        cluster.cut_watches()
        await cluster.create(PODS, "users", pod("ours"))
        await place.holds("ours")
        assert place.asked("list") == 1


async def test_a_server_that_is_away_makes_it_old_and_keeps_what_it_knows(place: Place) -> None:
    place.cluster.go_away()

    async def old() -> bool:
        return place.cache.age_seconds() > 0

    await until(old, "it says that it lost touch")
    assert sorted(place.cache.items) == [("users", "one")]
    assert place.gone == []
    place.cluster.away = False
    await place.is_open()
    assert place.asked("list") == 1


async def test_a_server_that_came_back_with_an_older_history_is_listed_anew(place: Place) -> None:
    """A restored etcd: versions went back. After some failures the version itself is suspected."""
    place.cluster.refuse["watch", "pods"] = ApiError(500, "", "too large resource version")
    place.cluster.cut_watches()

    async def listed() -> bool:
        return place.asked("list") >= 2

    await until(listed, "it lists anew")
    place.cluster.refuse.clear()
    await place.is_open()


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_is_waited_out_with_growing_pauses(status: int) -> None:
    cluster = ClusterInMemory()
    cluster.refuse["list", "pods"] = ApiError(status, "", "no")
    place = Place(cluster, first_pause_seconds=0.5)
    listening_to_it = asyncio.ensure_future(place.cache.run())
    await asyncio.sleep(1.0)
    assert 1 <= len(cluster.asked) <= 4
    cluster.refuse.clear()
    await cluster.create(PODS, "users", pod("two"))
    await place.holds("two")
    listening_to_it.cancel()
    await asyncio.gather(listening_to_it, return_exceptions=True)


async def test_a_slow_server_is_waited_for() -> None:
    cluster = ClusterInMemory()
    await cluster.create(PODS, "users", pod("one"))
    cluster.slow_seconds = 0.3
    async with listening(Place(cluster)) as place:
        await place.holds("one")
        await cluster.create(PODS, "users", pod("two"))
        await place.holds("one", "two")


async def test_an_object_that_nobody_foresaw_silences_it_for_no_longer_than_it_is_there() -> None:
    cluster = ClusterInMemory()

    def keep(found: Object) -> str:
        if found["metadata"]["name"] == "odd":
            raise KeyError("unforeseen")
        return ""

    async with listening(Place(cluster, keep)) as place:
        await place.is_open()
        await cluster.create(PODS, "users", pod("odd"))

        async def old() -> bool:
            return place.cache.age_seconds() > 0

        await until(old, "it does not pretend to know")
        await cluster.delete(PODS, "users", "odd", grace_seconds=0)
        await cluster.create(PODS, "users", pod("two"))
        await place.holds("two")


async def test_a_large_list_comes_in_bounded_pages() -> None:
    cluster = PagesCounted()
    for number in range(2 * PAGE + 7):
        await cluster.create(PODS, "users", pod(f"p{number:05}"))
    async with listening(Place(cluster)) as place:
        assert len(place.cache.items) == 2 * PAGE + 7
    assert cluster.sizes == [PAGE, PAGE, 7]


async def test_where_pages_take_too_long_the_list_is_taken_whole_once() -> None:
    cluster = PagesThatExpire()
    for number in range(PAGE + 1):
        await cluster.create(PODS, "users", pod(f"p{number:05}"))
    async with listening(Place(cluster)) as place:
        assert len(place.cache.items) == PAGE + 1
    assert cluster.sizes == [PAGE, PAGE + 1]


async def test_an_answer_to_our_own_write_is_known_at_once_and_never_undoes_what_was_heard_since(
    place: Place,
) -> None:
    place.cluster.slow_seconds = 30  # the watch says nothing for a while
    place.cluster.cut_watches()
    place.cluster.slow_seconds = 0
    mine = await place.cluster.create(PODS, "users", pod("two", value="mine"))
    place.cache.put(mine)
    assert place.cache.items["users", "two"] == "mine"
    newer = await place.cluster.patch(PODS, "users", "two", {"metadata": {"labels": {"value": "newer"}}})
    place.cache.put(newer)
    place.cache.put(mine)
    assert place.cache.items["users", "two"] == "newer"


async def test_what_we_removed_ourselves_is_not_told_as_gone(place: Place) -> None:
    await place.cluster.delete(PODS, "users", "one", grace_seconds=0)
    place.cache.drop(("users", "one"))
    await place.cluster.create(PODS, "users", pod("two"))
    await place.holds("two")
    assert place.gone == []


async def test_an_object_that_stops_to_matter_is_gone() -> None:
    cluster = ClusterInMemory()
    await cluster.create(PODS, "users", pod("one", value="1"))
    async with listening(
        Place(cluster, lambda found: found["metadata"]["labels"].get("value") or None)
    ) as place:
        await place.is_open()
        await cluster.patch(PODS, "users", "one", {"metadata": {"labels": {"value": ""}}})
        await place.holds()
        assert place.gone == ["one=1"]


class PagesCounted(ClusterInMemory):
    """It writes down how many objects each page had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def list(self, kind: Kind, namespace: str | None = None, **how: object) -> Page:
        page = await super().list(kind, namespace, **how)  # type: ignore[arg-type]
        self.sizes.append(len(page.items))
        return page


class PagesThatExpire(PagesCounted):
    """No second page can be had: the list takes longer than the server keeps its versions."""

    async def list(self, kind: Kind, namespace: str | None = None, **how: object) -> Page:
        page = await super().list(kind, namespace, **how)
        self._pages.clear()
        return page


class SaysNonsense(ClusterInMemory):
    """Its watches bring something that is no object."""

    def watch(self, kind: Kind, namespace: str | None = None, **how: object) -> AsyncIterator[Change]:
        return self._nonsense()

    async def _nonsense(self) -> AsyncIterator[Change]:
        self.asked.append(("watch", "pods"))
        yield Change("OPENED", {})
        yield Change("MODIFIED", {"metadata": None})
        yield Change("DELETED", {})
        yield Change("BOOKMARK", {})


async def test_nonsense_on_a_watch_is_survived() -> None:
    cluster = SaysNonsense()
    await cluster.create(PODS, "users", pod("one"))
    async with listening(Place(cluster, lambda found: str(found.get("metadata")))) as place:

        async def twice() -> bool:
            return place.asked("watch") >= 2

        await until(twice, "it listens again")
        assert ("users", "one") in place.cache.items
