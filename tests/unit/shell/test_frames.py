"""The frames between a terminal and its server, and how hard a Ctrl-C is."""

from __future__ import annotations

import signal

import pytest

from gpusession.shell import frames
from gpusession.shell.running import AGAIN_SECONDS, Interrupts


def test_a_frame_comes_back_as_it_was_packed() -> None:
    data = bytes(range(256)) * 3
    packed = frames.pack(frames.STDOUT, data)
    assert frames.head(packed[: frames.HEAD.size]) == (frames.STDOUT, len(data))
    assert packed[frames.HEAD.size :] == data


def test_a_frame_that_claims_too_much_is_not_ours() -> None:
    with pytest.raises(frames.BrokenFrame):
        frames.head(frames.HEAD.pack(1, frames.MOST_BYTES + 1))


@pytest.mark.parametrize("body", [b"\xff", b"[1]", b"", b"{"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(frames.BrokenFrame):
        frames.read_json(body)


def test_each_ctrl_c_in_a_row_is_harder() -> None:
    interrupts = Interrupts(clock=lambda: 10.0)
    assert [interrupts.next() for _ in range(4)] == [
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGKILL,
        signal.SIGKILL,
    ]


def test_a_program_that_answered_is_asked_gently_again() -> None:
    interrupts = Interrupts(clock=lambda: 10.0)
    interrupts.next()
    interrupts.answered()
    assert interrupts.next() == signal.SIGINT


def test_a_late_ctrl_c_is_a_first_one() -> None:
    moments = iter([0.0, AGAIN_SECONDS + 1])
    interrupts = Interrupts(clock=lambda: next(moments))
    assert [interrupts.next(), interrupts.next()] == [signal.SIGINT, signal.SIGINT]
