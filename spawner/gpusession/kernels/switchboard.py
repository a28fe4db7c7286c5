"""The relay's thread: carries messages between the clients' address and the kernel behind it.

Exists so that neither the Jupyter server's loop nor the session's ever waits for a socket.
Promises: it never blocks but in its own poll, woken through an eventfd; every request that came
in is answered exactly once, by the kernel or in its name; what belongs to our own session (the
agent's requests, probes) is never shown to clients. Everything with a leading underscore runs in
the thread; others talk to it by `call`. About 400 lines: the routing of five channels
belongs in one place, where an order of events can be read from top to bottom.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import zmq

from gpusession.kernels.admission import Admission, Request, loads, parent_of, request_from
from gpusession.kernels.outlet import Outlet
from gpusession.kernels.ports import AgentError, Progress
from gpusession.kernels.sockets import Address, Back, Front, received
from gpusession.kernels.wire import EMPTY, Message, Wire, pack, parse

log = logging.getLogger(__name__)

OWN = b"gpuhub"
"""Stands where a client's identity stands in requests of our own."""

BURST = 500
"""Messages taken from one socket before the others get their turn."""

PROBE_SECONDS = 0.1
HALF_SECONDS = 10.0
"""A request whose reply or idle is missing this long after the other (and after any output) counts as
done: kernels that are not ours can lose either under load."""

INTERRUPT_SECONDS = 2.0
"""How long the next request waits for an interrupt of ours to be over."""

ANSWERED_KEPT = 4096


class Own:
    """A request of our own that waits for its reply."""

    def __init__(self, channel: str, progress: Progress | None) -> None:
        self.channel, self.progress = channel, progress
        self.result: Future[dict[str, Any]] = Future()


class Switchboard(threading.Thread):
    """One kernel's thread. ``front`` is bound when the constructor returns."""

    def __init__(
        self, name: str, context: zmq.Context[Any], address: Address, wire: Wire, *, budget_bytes: int
    ) -> None:
        super().__init__(name=f"relay-{name}", daemon=True)
        self._wire, self._context = wire, context
        self.front = Front(context, address)
        self.queue = Admission()
        self.waits_for_input = False
        self.kernel_info: dict[str, Any] | None = None
        self.back: Back | None = None
        self._others: list[Back] = []
        self._identity = f"gpuhub-{wire.session}".encode()
        self._outlet = Outlet(self.front.sockets["iopub"], budget_bytes, self._line, time.monotonic)
        self._own: dict[str, Own] = {}
        self._answered: deque[str] = deque(maxlen=ANSWERED_KEPT)
        self._said: deque[tuple[str, str]] = deque()
        self._interrupt: tuple[str, float] | None = None
        self._published_at = 0.0
        self._busy = False
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        self._over = False
        self._lock = threading.Lock()
        self._landing: list[Future[None]] = []
        self._poller = zmq.Poller()
        self._poller.register(self._wakeup, zmq.POLLIN)
        for socket in self.front.sockets.values():
            self._poller.register(socket, zmq.POLLIN)

    # --- from other threads

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run ``work`` in the thread; cancelled when the relay is closed."""
        future: Future[Any] = Future()
        with self._lock:
            if self._over:
                future.cancel()
                return future
            self._calls.append((work, future))
            os.eventfd_write(self._wakeup, 1)
        return future

    def close(self) -> None:
        """End the thread and free the address. Idempotent; waits for the thread."""
        with self._lock:
            self._closing = True
            if not self._over:
                os.eventfd_write(self._wakeup, 1)
        if self.is_alive():
            self.join(5)
        elif not self._over:
            self._end()

    # --- the loop

    def run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception:
            log.exception("a relay has ended")
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._over = True
            os.close(self._wakeup)
        for _, future in self._calls:
            future.cancel()
        for waiting in self._landing:
            waiting.cancel()
        self._fail_own("The kernel was shut down.")
        for back in [*self._others, *([self.back] if self.back else [])]:
            back.close()
        self.front.close()

    def _turn(self) -> None:
        events = dict(self._poller.poll(self._patience()))
        if self._wakeup in events:
            os.eventfd_read(self._wakeup)
        while self._calls:
            work, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:  # noqa: BLE001 - it belongs to the caller
                    future.set_exception(error)
        front = self.front.sockets
        for socket, handle in (
            (front["shell"], self._from_client_shell),
            (front["control"], self._from_client_control),
            (front["stdin"], self._from_client_stdin),
            (front["hb"], self._from_client_hb),
            (front["iopub"], self._subscription),
        ):
            if socket in events:
                for frames in received(socket, BURST):
                    handle(frames)
        back = self.back
        if back is not None:
            self._hear(back, events)
        for other in list(self._others):
            self._hear_candidate(other, events)
        self._outlet.flush()
        self._probe()
        self._give_up_halves()
        self._settle()

    def _patience(self) -> int:
        """Milliseconds to wait for something to happen."""
        if self._outlet.waiting:
            return 5
        if self._interrupt is not None or any(back.on_proven for back in self._others):
            return 50
        return 500 if any(one.half_since for one in self.queue.flying.values()) else 10_000

    # --- from clients

    def _from_client_shell(self, frames: list[bytes]) -> None:
        message = parse(frames)
        if message is None or not message.idents or not self._wire.genuine(message):
            log.warning("a message that is not signed with the kernel's key was dropped")
            return
        if not self.queue.is_new(message):
            return
        request = request_from(message, frames)
        if message.type == "kernel_info_request" and self._answers_itself():
            self._answer(request, {**(self.kernel_info or {}), "status": "ok"}, "ok")
            self._publish_state("busy")
            return
        self.queue.add(request)
        if request.executes:
            self._say_waiting()

    def _answers_itself(self) -> bool:
        """A page that is opened during a move asks what this kernel is: it need not wait."""
        return self.kernel_info is not None and self.back is not None and self.queue.holds != set()

    def _from_client_control(self, frames: list[bytes]) -> None:
        if self.back is not None:
            self.back.sockets["control"].send_multipart(frames, zmq.NOBLOCK)

    def _from_client_stdin(self, frames: list[bytes]) -> None:
        self.waits_for_input = False
        if self.back is not None:
            self.back.sockets["stdin"].send_multipart(frames, zmq.NOBLOCK)

    def _from_client_hb(self, frames: list[bytes]) -> None:
        if self.back is not None:
            self.back.sockets["hb"].send_multipart(frames, zmq.NOBLOCK)

    def _subscription(self, frames: list[bytes]) -> None:
        if frames[0][:1] == b"\x01":
            topic = frames[0][1:]
            content = {"subscription": topic.decode("utf-8", "replace")}
            welcome = self._wire.make("iopub_welcome", content, idents=[topic] if topic else [])
            self._outlet.publish(welcome, "iopub_welcome", EMPTY)

    # --- from the kernel

    def _hear(self, back: Back, events: dict[Any, int]) -> None:
        sockets = back.sockets
        if sockets["iopub"] in events:
            for frames in received(sockets["iopub"], BURST):
                self._published(frames)
        if sockets["shell"] in events:
            for frames in received(sockets["shell"], BURST):
                self._replied(frames, "shell")
        if sockets["control"] in events:
            for frames in received(sockets["control"], BURST):
                self._replied(frames, "control")
        if sockets["stdin"] in events:
            for frames in received(sockets["stdin"], BURST):
                self.waits_for_input = True
                self._send_front("stdin", frames)
        if sockets["hb"] in events:
            for frames in received(sockets["hb"], BURST):
                self._send_front("hb", frames)

    def _send_front(self, channel: str, frames: list[bytes]) -> None:
        self.front.sockets[channel].send_multipart(frames, zmq.NOBLOCK)

    def _published(self, frames: list[bytes]) -> None:
        message = parse(frames)
        if message is None or message.type == "iopub_welcome":
            return
        self._published_at = time.monotonic()
        idle = message.type == "status" and message.content().get("execution_state") == "idle"
        if idle:
            self.queue.went_idle(message.parent_id, self._published_at)
        if message.parent.get("session") == self._wire.session:
            self._own_published(message)
            return
        if message.parent_id in self._answered:
            return
        self._outlet.publish(frames, message.type, message.parts[1])
        if idle and self._busy:
            self._publish_state("busy")

    def _own_published(self, message: Message) -> None:
        own = self._own.get(message.parent_id)
        if own is not None and own.progress is not None and message.type == "gpuhub_progress":
            content = message.content()
            own.progress(int(content.get("done", 0)), content.get("total"))

    def _replied(self, frames: list[bytes], channel: str) -> None:
        message = parse(frames)
        if message is None:
            return
        if frames[0] == OWN:
            self._own_replied(message)
            return
        if message.parent_id in self._answered:
            return
        self._send_front(channel, frames)
        if channel != "shell":
            return
        request = self.queue.flying.get(message.parent_id)
        if request is not None and request.executes:
            # Those that a client had already sent when its cell failed are in the socket at the latest.
            for more in received(self.front.sockets["shell"], 1 << 20):
                self._from_client_shell(more)
        if message.type == "kernel_info_reply":
            self.kernel_info = message.content()
        self.queue.reply(message.parent_id, message.content(), time.monotonic())

    def _own_replied(self, message: Message) -> None:
        if self._interrupt is not None and message.parent_id == self._interrupt[0]:
            self._interrupt = None
        self.queue.reply(message.parent_id, {}, time.monotonic())
        own = self._own.pop(message.parent_id, None)
        if own is None:
            return
        content = message.content()
        if content.get("status") == "ok":
            _resolve(own.result, content)
        else:
            _reject(
                own.result,
                AgentError(
                    str(content.get("code", "internal")),
                    str(content.get("message") or content.get("evalue") or "The kernel refused."),
                    content.get("details") if isinstance(content.get("details"), dict) else None,
                ),
            )

    # --- what goes to the kernel

    def _settle(self) -> None:
        """Take out what is done, answer what was doomed, and let the next one go."""
        for request in list(self.queue.flying.values()):
            if self.queue.landed(request) and not request.own:
                self.waits_for_input = False
        for request in self.queue.take_doomed():
            self._answer(request, {"status": "aborted"}, "aborted")
        back = self.back
        if back is not None and not self._interrupting():
            while (request := self.queue.next()) is not None:
                back.sockets["shell"].send_multipart(request.frames, zmq.NOBLOCK)
        if not self.queue.flying:
            landing, self._landing = self._landing, []
            for future in landing:
                _resolve(future, None)
        busy = "move" in self.queue.holds or "worker" in self.queue.holds
        if busy != self._busy:
            self._busy = busy
            if busy:
                self._publish_state("busy")
            elif not self.queue.flying:
                self._publish_state("idle")

    def _interrupting(self) -> bool:
        if self._interrupt is not None and time.monotonic() - self._interrupt[1] > INTERRUPT_SECONDS:
            self._interrupt = None
        return self._interrupt is not None

    def _give_up_halves(self) -> None:
        now = time.monotonic()
        for request in list(self.queue.flying.values()):
            since = request.half_since
            if since is not None and now - max(since, self._published_at) > HALF_SECONDS:
                log.warning("a kernel never finished its answer to %s", request.message.type)
                self.queue.forget(request)

    def send_own(
        self, msg_type: str, content: dict[str, Any], channel: str, progress: Progress | None = None
    ) -> tuple[str, Future[dict[str, Any]]]:
        """In the thread: send a request of our own; the future gets its reply's content."""
        own = Own(channel, progress)
        frames = self._wire.make(msg_type, content, idents=[OWN])
        message = parse(frames)
        assert message is not None
        if self.back is None:
            own.result.set_exception(AgentError("unavailable", "The notebook's kernel is not running."))
            return message.id, own.result
        self._own[message.id] = own
        if channel == "shell":
            self.queue.add(request_from(message, frames, own=True))
        else:
            self.back.sockets[channel].send_multipart(frames, zmq.NOBLOCK)
        return message.id, own.result

    def drop_own(self, msg_id: str) -> None:
        """In the thread: nobody waits for this request any more. One that runs is interrupted."""
        if self._own.pop(msg_id, None) is None:
            return
        for request in list(self.queue.urgent):
            if request.id == msg_id:
                self.queue.urgent.remove(request)
                return
        if msg_id in self.queue.flying:
            self._interrupt = (self.interrupt(), time.monotonic())

    def interrupt(self) -> str:
        """In the thread: interrupt by message."""
        return self.send_own("interrupt_request", {}, "control")[0]

    def _fail_own(self, why: str) -> None:
        lost, self._own = list(self._own.values()), {}
        for own in lost:
            _reject(own.result, AgentError("unavailable", why))

    # --- answers in the kernel's name

    def _answer(
        self, request: Request, content: dict[str, Any], status: str, *, running: bool = False
    ) -> None:
        """Busy, reply, idle, as a kernel does. ``running``: the kernel has said busy already."""
        message = request.message
        parent = parent_of(request)
        if not running:
            self._publish_state("busy", parent)
        if content.get("status") == "error" and request.executes:
            error = {name: content[name] for name in ("ename", "evalue", "traceback")}
            self._outlet.publish(
                self._wire.make("error", error, parent=parent, idents=[b"error"]), "error", parent
            )
        if message.type.endswith("_request"):
            reply = self._wire.make(
                message.type.removesuffix("_request") + "_reply",
                content,
                idents=message.idents,
                parent=parent,
                metadata={**self._wire.started(), "status": status},
            )
            self._send_front("shell", reply)
        self._publish_state("idle", parent)

    def _publish_state(self, state: str, parent: bytes = EMPTY) -> None:
        frames = self._wire.make("status", {"execution_state": state}, parent=parent, idents=[b"status"])
        self._outlet.publish(frames, "status", parent)

    def _line(self, text: str, parent: bytes, name: str = "stderr") -> list[bytes]:
        return self._wire.make("stream", {"name": name, "text": text}, parent=parent, idents=[b"stream"])

    def fail(self, request: Request, ename: str, evalue: str) -> None:
        """In the thread: answer a request with an error."""
        running = request.id in self.queue.flying
        self.queue.forget(request)
        self._answered.append(request.id)
        content = {
            "status": "error",
            "ename": ename,
            "evalue": evalue,
            "traceback": [f"\x1b[0;31m{ename}\x1b[0m: {evalue}"],
            "execution_count": None,
            "user_expressions": {},
            "payload": [],
        }
        self._answer(request, content, "error", running=running)

    def fail_flying(self, ename: str, evalue: str) -> str | None:
        """In the thread: answer what runs with an error; return its code."""
        code = self.queue.in_flight
        for request in list(self.queue.flying.values()):
            if request.own:
                self.queue.forget(request)
            elif request.replied:
                self._publish_state("idle", parent_of(request))
                self._answered.append(request.id)
                self.queue.forget(request)
            else:
                self.fail(request, ename, evalue)
        self.waits_for_input = False
        return code

    def abort_waiting(self) -> int:
        """In the thread: answer everything that waits ``aborted``."""
        taken = self.queue.take_waiting()
        for request in taken:
            self._answer(request, {"status": "aborted"}, "aborted")
        return len(taken)

    def say(self, text: str, name: str) -> None:
        """In the thread: a line under the cell that runs or waits first; kept until there is one."""
        self._said.append((text, name))
        self._say_waiting()

    def _say_waiting(self) -> None:
        cells = [
            one for one in [*self.queue.flying.values(), *self.queue.waiting] if one.executes and not one.own
        ]
        while cells and self._said:
            text, name = self._said.popleft()
            parent = parent_of(cells[0])
            self._outlet.publish(self._line(text, parent, name), "stream", parent)

    # --- candidates

    def connect(self, channels: dict[str, str], on_proven: Callable[[], None]) -> Back:
        """In the thread: connect to a process and ask it until it answers."""
        back = Back(self._context, channels, self._identity)
        back.on_proven = on_proven
        self._others.append(back)
        self._watch(back, True)
        return back

    def discard(self, back: Back) -> None:
        """In the thread: forget a process. Nothing of it is passed on any more."""
        if back in self._others:
            self._others.remove(back)
            self._watch(back, False)
            back.close()

    def switch(self, back: Back | None) -> None:
        """In the thread: let this process answer from now on."""
        if back is not None:
            self._others.remove(back)
            back.on_proven = None
            self.kernel_info = back.kernel_info or self.kernel_info
        old, self.back = self.back, back
        self._interrupt = None
        self.queue.succeeded = 0
        if old is not None:
            self._fail_own("Another process answers for this kernel now.")
            for request in list(self.queue.urgent):
                self.queue.urgent.remove(request)
            for request in list(self.queue.flying.values()):
                if request.own:
                    self.queue.forget(request)
            self._watch(old, False)
            old.close()

    def started_anew(self) -> None:
        """In the thread: say that a new, empty kernel answers, as a kernel does at its start."""
        self._publish_state("starting")
        if not self.queue.flying and not self._busy:
            self._publish_state("idle")

    def _watch(self, back: Back, on: bool) -> None:
        for socket in back.sockets.values():
            if on:
                self._poller.register(socket, zmq.POLLIN)
            else:
                self._poller.unregister(socket)

    def _probe(self) -> None:
        now = time.monotonic()
        for back in self._others:
            if back.on_proven is None or now - back.probed_at < PROBE_SECONDS:
                continue
            back.probed_at = now
            for channel in ("control", "shell"):
                header = self._wire.header("kernel_info_request")
                back.probes.add(header["msg_id"])
                frames = self._wire.make("kernel_info_request", {}, idents=[OWN], header=header)
                back.sockets[channel].send_multipart(frames, zmq.NOBLOCK)

    def _hear_candidate(self, back: Back, events: dict[Any, int]) -> None:
        for channel in ("shell", "control", "iopub"):
            if back.sockets[channel] not in events:
                continue
            for frames in received(back.sockets[channel], BURST):
                message = parse(frames)
                if message is None:
                    continue
                if message.parent_id in back.probes:
                    self._probe_answered(back, channel, message)
                elif channel != "iopub" and frames[0] == OWN:
                    self._own_replied(message)
                elif channel == "iopub":
                    self._own_published(message)
        if back.proven and back.on_proven is not None:
            back.on_proven, tell = None, back.on_proven
            tell()

    def _probe_answered(self, back: Back, channel: str, message: Message) -> None:
        if channel == "iopub":
            back.idle = back.idle or message.content().get("execution_state") == "idle"
        elif message.type == "kernel_info_reply":
            back.replied.add(channel)
            back.kernel_info = message.content()

    def send_to_candidate(
        self, back: Back, content: dict[str, Any], channel: str, progress: Progress | None
    ) -> tuple[str, Future[dict[str, Any]]]:
        """In the thread: a request of our own to a process that does not answer clients (yet)."""
        if back is self.back:
            return self.send_own("gpuhub_request", content, channel, progress)
        own = Own(channel, progress)
        header = self._wire.header("gpuhub_request")
        self._own[header["msg_id"]] = own
        if back not in self._others:
            own.result.set_exception(AgentError("unavailable", "The process has ended."))
            return header["msg_id"], own.result
        frames = self._wire.make("gpuhub_request", content, idents=[OWN], header=header)
        back.sockets[channel].send_multipart(frames, zmq.NOBLOCK)
        return header["msg_id"], own.result

    def landed(self) -> Future[None]:
        """In the thread: a future that is done when nothing is with the kernel."""
        future: Future[None] = Future()
        self._landing.append(future)
        return future


def _resolve(future: Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


__all__ = ["EMPTY", "Own", "Switchboard", "loads", "pack"]
