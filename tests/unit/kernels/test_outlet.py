"""The way out for output: in order, bounded, and visibly cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from gpusession.kernels.outlet import STUCK_SECONDS, Outlet


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """An outlet on a real socket whose pipes hold ten messages, and readers that read when told to."""

    def __init__(self, budget: int) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 10)
        self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://out")
        self.clock = Clock()
        self.outlet = Outlet(self.socket, budget, lambda text, parent: [b"line", text.encode()], self.clock)
        self.readers: list[zmq.Socket[bytes]] = []

    def reader(self) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 10)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect("inproc://out")
        self.socket.recv()
        self.readers.append(socket)
        return socket

    def publish(self, *texts: str, kind: str = "stream") -> None:
        for text in texts:
            self.outlet.publish([b"m", text.encode()], kind, b"{}")

    def read(self, socket: zmq.Socket[bytes]) -> list[str]:
        """Read until nothing comes any more; ZeroMQ looks for room only every few milliseconds."""
        found: list[str] = []
        quiet = 0
        while quiet < 10:
            self.outlet.flush()
            if socket.poll(10):
                quiet = 0
                found.append(socket.recv_multipart()[1].decode())
            else:
                quiet += 1
        return found

    def close(self) -> None:
        for socket in [*self.readers, self.socket]:
            socket.close(0)
        self.context.term()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(budget=1000)
    yield made
    made.close()


def test_a_slow_reader_gets_everything_in_order(stage: Stage) -> None:
    reader = stage.reader()
    texts = [f"{n:03}" for n in range(200)]
    stage.publish(*texts)
    assert stage.outlet.waiting
    assert stage.read(reader) == texts
    assert not stage.outlet.waiting


def test_beyond_the_budget_output_is_cut_with_a_word_at_both_ends(stage: Stage) -> None:
    reader = stage.reader()
    texts = [f"{n:04}" + "x" * 96 for n in range(100)]
    stage.publish(*texts)
    got = stage.read(reader)
    at = next(n for n, text in enumerate(got) if text.startswith("Output was cut here"))
    assert got[:at] == texts[:at]
    said = got[-1]
    assert said == f"{100 - at} outputs ({(100 - at) * 101 / 1e6:.1f} MB) were left out.\n"
    assert len(got) == at + 2


def test_states_and_errors_are_never_cut(stage: Stage) -> None:
    reader = stage.reader()
    stage.publish(*["x" * 100] * 100)
    stage.publish("idle", kind="status")
    stage.publish("boom", kind="error")
    got = stage.read(reader)
    assert [text for text in got if text in ("idle", "boom")] == ["idle", "boom"]


def test_after_a_cut_output_flows_again(stage: Stage) -> None:
    reader = stage.reader()
    stage.publish(*["x" * 100] * 100)
    stage.read(reader)
    stage.publish("fresh")
    assert stage.read(reader) == ["fresh"]


def test_without_readers_nothing_piles_up(stage: Stage) -> None:
    stage.publish(*["x" * 100] * 1000)
    assert not stage.outlet.waiting


def test_a_reader_that_takes_nothing_is_passed_by_after_a_while_and_the_others_are_told(stage: Stage) -> None:
    stage.reader()
    good = stage.reader()
    stage.publish(*(f"{n:03}" for n in range(30)))
    got = stage.read(good)
    assert len(got) < 30
    assert stage.outlet.waiting
    stage.clock.now += STUCK_SECONDS + 1
    got += stage.read(good)
    assert [text for text in got if text.isdigit()][:10] == [f"{n:03}" for n in range(10)]
    assert any("takes no output any more" in text for text in got)
    assert not stage.outlet.waiting
