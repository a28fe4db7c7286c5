"""What runs on the worker as the server sees it, and their conversation, without a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpulease.errors import InvalidOption, LinkLost, NotFound
from gpusession.worker.conversation import Conversation
from gpusession.worker.far import FarKernel, FarProgram


class Worker:
    """Remembers what it was asked; ``knows`` nothing any more when it should refuse."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.refuse: Exception | None = None

    async def ask(self, op: str, **content: Any) -> dict[str, Any]:
        self.asked.append((op, content))
        if self.refuse is not None:
            raise self.refuse
        return {}

    def tell(self, op: str, **content: Any) -> None:
        self.asked.append((op, content))


def far_kernel(worker: Worker, folder: Path) -> FarKernel:
    return FarKernel(
        worker, {"target": "k1", "kernel": "k", "pid": 7, "channels": {}, "parked": False}, folder
    )


async def test_what_has_ended_is_not_signalled_any_more(tmp_path: Path) -> None:
    worker = Worker()
    kernel = far_kernel(worker, tmp_path)
    kernel.ended(0)
    kernel.ended(-9)
    await kernel.signal(2)
    await kernel.kill()
    assert (kernel.exited.result(), worker.asked) == (0, [])


@pytest.mark.parametrize("error", [NotFound("Gone."), LinkLost("Gone.")])
async def test_a_signal_that_comes_too_late_is_fine(tmp_path: Path, error: Exception) -> None:
    worker = Worker()
    worker.refuse = error
    await far_kernel(worker, tmp_path).signal(2)
    assert worker.asked == [("signal", {"target": "k1", "number": 2})]


async def test_a_kernels_sockets_are_named_by_us_not_by_the_worker(tmp_path: Path) -> None:
    shown = {"target": "k1", "kernel": "k", "pid": 7, "parked": False, "channels": {"../../evil": "/x"}}
    kernel = FarKernel(Worker(), shown, tmp_path)
    assert set(kernel.channels) == {"shell", "iopub", "stdin", "control", "hb"}
    assert all(path.startswith(f"ipc://{tmp_path}/k1-") for path in kernel.channels.values())


async def test_a_window_size_is_kept_within_what_a_terminal_can_say() -> None:
    worker = Worker()
    FarProgram(worker, "c1", 7, True).resize(0, 1_000_000)
    assert worker.asked == [("resize", {"target": "c1", "size": {"columns": 1, "rows": 65535}})]


class Channel:
    """A channel to nowhere that remembers lines, and whether its connection was ended."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, line: bytes) -> None:
        self.sent.append(line)

    def get_connection(self) -> Channel:
        return self

    def abort(self) -> None:
        self.aborted = True


def conversation() -> tuple[Conversation, Channel, list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []
    made, channel = Conversation(heard.append), Channel()
    made.connection_made(channel)  # type: ignore[arg-type]
    return made, channel, heard


async def test_answers_find_their_questions_in_any_order_and_any_pieces() -> None:
    talk, channel, heard = conversation()
    one, two = asyncio.create_task(talk.ask({"op": "a"})), asyncio.create_task(talk.ask({"op": "b"}))
    await asyncio.sleep(0)
    assert [json.loads(line) for line in channel.sent] == [{"id": 1, "op": "a"}, {"id": 2, "op": "b"}]
    ended = {"event": "ended", "target": "k1", "status": 0}
    said = [{"id": 2, "ok": {"n": 2}}, ended, {"id": 1, "ok": {"n": 1}}]
    stream = b"".join(json.dumps(one).encode() + b"\n" for one in said)
    for begin in range(0, len(stream), 7):
        talk.data_received(stream[begin : begin + 7], None)
    assert [await one, await two] == [{"n": 1}, {"n": 2}]
    assert heard == [ended]


async def test_a_refusal_is_raised_as_the_class_it_was() -> None:
    talk, _, _ = conversation()
    asking = asyncio.create_task(talk.ask({"op": "a"}))
    await asyncio.sleep(0)
    refusal = InvalidOption("This does not work.", hint="Do that.")
    talk.data_received(json.dumps({"id": 1, "error": refusal.as_dict()}).encode() + b"\n", None)
    with pytest.raises(InvalidOption, match="This does not work") as refused:
        await asking
    assert refused.value.hint == "Do that."


async def test_the_loss_of_the_channel_answers_every_question() -> None:
    talk, channel, _ = conversation()
    asking = [asyncio.create_task(talk.ask({"op": "a"})) for _ in range(3)]
    await asyncio.sleep(0)
    talk.connection_lost(None)
    for one in asking:
        with pytest.raises(LinkLost):
            await one
    assert channel.aborted


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b'{"id": 1}\n', b"[" * 100_000 + b"\n", b'{"id": [1], "ok": {}}\n']
)
async def test_a_worker_that_talks_nonsense_is_not_talked_to_any_further(line: bytes) -> None:
    talk, channel, _ = conversation()
    asking = asyncio.create_task(talk.ask({"op": "a"}))
    await asyncio.sleep(0)
    talk.data_received(line, None)
    assert channel.aborted
    asking.cancel()
