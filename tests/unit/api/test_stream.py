"""Event streams: framing, signs of life, slow readers, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from gpuhub.api.stream import Readers, frame, stream
from gpulease.errors import LimitReached, NotSignedIn, Unavailable
from gpulease.events import Decoder, Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int | None, **data: object) -> Event:
    return Event(id=number, kind="lease" if number is not None else "usage", at=NOW, data=data)


async def fine() -> None:
    return None


async def endless(*events: Event) -> AsyncIterator[Event]:
    for one in events:
        yield one
    await asyncio.Event().wait()


def test_a_frame_is_read_back_as_it_was() -> None:
    decoder = Decoder()
    found = [one for line in frame(event(7, text="two\nlines: ü")).split("\n") for one in decoder.feed(line)]
    assert [(one[0], one[1]) for one in found] == [("7", "lease")]
    assert json.loads(found[0][2]) == {"at": NOW.isoformat(), "data": {"text": "two\nlines: ü"}}


async def test_events_come_in_order_after_a_welcome() -> None:
    frames = stream(endless(event(1), event(2)), check=fine, closing=asyncio.Event())
    assert (await anext(frames)).startswith("retry:")
    assert [await anext(frames), await anext(frames)] == [frame(event(1)), frame(event(2))]
    await frames.aclose()


async def test_silence_is_broken_by_signs_of_life() -> None:
    frames = stream(endless(), check=fine, closing=asyncio.Event(), alive_seconds=0.01)
    await anext(frames)
    assert [await anext(frames), await anext(frames)] == [": alive\n\n"] * 2
    await frames.aclose()


async def test_the_end_of_the_process_ends_the_stream() -> None:
    closing = asyncio.Event()
    frames = stream(endless(), check=fine, closing=closing)
    await anext(frames)
    asyncio.get_running_loop().call_later(0.01, closing.set)
    assert [text async for text in frames] == []


async def test_a_revoked_token_ends_the_stream() -> None:
    async def refused() -> None:
        raise NotSignedIn("gone")

    frames = stream(endless(), check=refused, closing=asyncio.Event(), check_seconds=0.01)
    await anext(frames)
    assert [text async for text in frames] == []


async def test_a_hub_that_is_away_ends_no_stream() -> None:
    async def away() -> None:
        raise Unavailable("away")

    frames = stream(endless(), check=away, closing=asyncio.Event(), check_seconds=0.001, alive_seconds=0.05)
    await anext(frames)
    assert await anext(frames) == ": alive\n\n"
    await frames.aclose()


async def test_a_reader_that_is_too_slow_gets_what_is_there_and_is_let_go() -> None:
    events = [event(number) for number in range(100)]
    frames = stream(endless(*events), check=fine, closing=asyncio.Event(), queue_size=10)
    await anext(frames)
    await asyncio.sleep(0.02)
    got = [text async for text in frames]
    assert got == [frame(one) for one in events[:10]]


async def test_telemetry_is_left_out_for_a_slow_reader_rather_than_ending_him() -> None:
    samples = [event(None, percent=percent) for percent in range(100)]
    frames = stream(endless(*samples), check=fine, closing=asyncio.Event(), queue_size=16, alive_seconds=0.02)
    await anext(frames)
    await asyncio.sleep(0.02)
    got = [await anext(frames) for _ in range(3)]
    assert got == [frame(samples[0]), frame(samples[1]), ": alive\n\n"]
    await frames.aclose()


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a mistake")])
async def test_events_that_break_off_end_the_stream(error: Exception) -> None:
    async def broken() -> AsyncIterator[Event]:
        yield event(1)
        raise error

    frames = stream(broken(), check=fine, closing=asyncio.Event())
    await anext(frames)
    assert [text async for text in frames] == [frame(event(1))]


async def test_the_source_is_closed_when_the_reader_goes() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[Event]:
        try:
            yield event(1)
            await asyncio.Event().wait()
        finally:
            closed.set()

    frames = stream(source(), check=fine, closing=asyncio.Event())
    await anext(frames)
    await anext(frames)
    await frames.aclose()
    assert closed.is_set()


def test_one_person_cannot_take_all_streams() -> None:
    readers = Readers(allowed=2)
    with readers.place("ann"), readers.place("ann"):
        readers.check_room("ben")
        with pytest.raises(LimitReached) as refused:
            readers.check_room("ann")
        assert refused.value.details["allowed"] == 2
    readers.check_room("ann")
