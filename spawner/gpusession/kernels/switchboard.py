"""The relay's thread: carries messages between the clients' address and the kernel behind it.

Exists so that neither the Jupyter server's loop nor the session's ever waits for a socket.
Promises: it never blocks but in its own poll, woken through an eventfd; every request that came
in is answered exactly once, by the kernel or in its name; what belongs to our own session (the
agent's requests, probes) is never shown to clients. Everything with a leading underscore runs in
the thread, as does what says so; others talk to it by `call`. Over 300 lines: the routing of
five channels belongs in one place, where an order of events can be read from top to bottom.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import zmq

from gpusession.kernels.admission import DEAD, MOVE, START, WORKER, Admission, request_from
from gpusession.kernels.answering import Answering
from gpusession.kernels.answers import ABORTED, Voice, failed
from gpusession.kernels.boardthread import BoardThread, reject, resolve
from gpusession.kernels.candidates import Candidates
from gpusession.kernels.comms import Comms
from gpusession.kernels.debugsession import ENDED, DebugSession
from gpusession.kernels.outlet import Outlet
from gpusession.kernels.ownrequests import OWN, OwnRequests
from gpusession.kernels.ports import Progress
from gpusession.kernels.sockets import Address, Back, Front, received
from gpusession.kernels.wire import Wire, parse

log = logging.getLogger(__name__)

BURST = 500
"""Messages taken from one socket before the others get their turn."""

HALF_SECONDS, REPLY_SECONDS = 10.0, 3.0
"""A request whose idle (whose reply) is missing this long after the other, and after any output, counts
as done: kernels that are not ours lose states under load, and IPython's sends no reply when an
interrupt hits it between two cells."""

NEVER_REPLIED = failed("NoReply", "The kernel did not say how this ended.")

INTERRUPT_SECONDS = 2.0
"""How long the next request waits for an interrupt of ours to be over."""

CELL_WAITS, SHUTDOWN_ASKED, WORK = "cell-waits", "shutdown-asked", "work"

ANSWERED_KEPT = 4096
CONTROL_KEPT = 1000


class Switchboard(BoardThread):
    """One kernel's thread. ``front`` is bound when the constructor returns.

    ``told`` is called in the thread with `CELL_WAITS` (for a GPU: hold `WORKER`), `SHUTDOWN_ASKED`, or
    `WORK`: something began or ended to run, or to wait for an answer.
    """

    def __init__(
        self,
        name: str,
        context: zmq.Context[Any],
        address: Address,
        wire: Wire,
        *,
        budget_bytes: int,
        may_debug: bool = True,
        told: Callable[[str], None] = lambda event: None,
    ) -> None:
        super().__init__(f"relay-{name}")
        self._wire, self._told = wire, told
        self.front = Front(context, address)
        self.queue = Admission()
        self.in_flight: str | None = None
        """As of the end of the last turn; for other threads."""
        self.waits_for_input = self._waited = False
        self.kernel_info: dict[str, Any] | None = None
        self.back: Back | None = None
        self._own = OwnRequests()
        self.candidates = Candidates(context, wire, self.poller, self._own)
        self._outlet = Outlet(self.front.sockets["iopub"], budget_bytes, self._line, time.monotonic)
        self._voice = Voice(wire, self._outlet.publish, self._send_front)
        self.answering = Answering(self.queue, self._voice)
        self._comms = Comms()
        self._debugging = DebugSession(allowed=may_debug)
        self._answered: deque[str] = deque(maxlen=ANSWERED_KEPT)
        self._control: dict[str, list[bytes]] = {}
        """Requests on control that have no reply yet, as they came."""
        self._interrupt: tuple[str, float] | None = None
        self._published_at = 0.0
        self._busy = False
        self._landing: list[Future[None]] = []
        for socket in self.front.sockets.values():
            self.poller.register(socket, zmq.POLLIN)

    # --- the loop

    def ended(self) -> None:
        for waiting in self._landing:
            reject(waiting)
        self._own.fail_all("The notebook's kernel was shut down.")
        self.candidates.close()
        if self.back is not None:
            self.back.close()
        self.front.close()

    def turn(self, events: dict[Any, int]) -> None:
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
        if self.back is not None:
            self._hear(self.back, events)
        self.candidates.hear(events)
        self._outlet.flush()
        self.candidates.probe(time.monotonic())
        self._give_up_halves()
        self._settle()
        before = (self.in_flight is not None, self._waited)
        self.in_flight, self._waited = self.queue.in_flight, self.waits_for_input
        if before != (self.in_flight is not None, self._waited):
            self._told(WORK)

    def patience(self) -> int:
        if self._outlet.waiting:
            return 5
        if self._interrupt is not None or self.candidates.probing:
            return 50
        return 500 if any(one.half_since for one in self.queue.flying.values()) else 10_000

    # --- from clients

    def _from_client_shell(self, frames: list[bytes]) -> None:
        message = parse(frames)
        if message is None or not message.idents or not self._wire.genuine(message):
            log.warning("a message that is not signed with the kernel's key was dropped")
            return
        if not self.queue.is_new(message) or self._comms.addressed_to_dead(message):
            return
        request = request_from(message, frames)
        if message.type == "kernel_info_request" and self._answers_itself():
            self._voice.answer(request, {**(self.kernel_info or {}), "status": "ok"})
            if self._busy:
                self._voice.state("busy")
            return
        self.queue.add(request)
        if request.executes:
            self.answering.say_waiting()
            if WORKER in self.queue.holds:
                self._told(CELL_WAITS)

    def _answers_itself(self) -> bool:
        """A page that is opened during a move asks what this kernel is: it need not wait."""
        return self.kernel_info is not None and self.queue.holds != set()

    def _from_client_control(self, frames: list[bytes]) -> None:
        message = parse(frames)
        if message is None or not message.idents or not self._wire.genuine(message):
            return
        if message.type == "interrupt_request" and self.interrupted():
            self._voice.reply(message, {"status": "ok"}, "control")
            return
        if (refusal := self._debugging.refusal(message)) is not None:
            self._voice.answer_control(message, refusal)
            return
        if message.type == "shutdown_request":
            self._told(SHUTDOWN_ASKED)
        if len(self._control) < CONTROL_KEPT:
            self._control[message.id] = frames
        if self.back is not None:
            self.back.send("control", frames)

    def interrupted(self) -> bool:
        """In the thread: a person interrupts. True: nothing of his runs, so that was all.

        While the agent saves or loads, an interrupt must not hit that: it is meant for what waits.
        Jupyter interrupts before each restart, also after a crash: what waits then is for the new process.
        """
        if {DEAD, START} & self.queue.holds:
            return True
        main = self.queue.main
        if main is not None and not main.own:
            main.interrupted = True
            return False
        self.answering.abort_waiting(cells_only=True)
        return main is not None or self.back is None or self.queue.holds != set()

    def _from_client_stdin(self, frames: list[bytes]) -> None:
        self.waits_for_input = False
        if self.back is not None:
            self.back.send("stdin", frames)

    def _from_client_hb(self, frames: list[bytes]) -> None:
        if self.back is not None:
            self.back.send("hb", frames)

    def _subscription(self, frames: list[bytes]) -> None:
        if frames[0][:1] == b"\x01":
            self._voice.welcome(frames[0][1:])

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
            self._own.published(message)
            return
        if message.parent_id in self._answered:
            return
        self._comms.note(message)
        self._debugging.published(message)
        self._outlet.publish(frames, message.type, message.parts[1])
        if idle and self._busy:
            self._voice.state("busy")

    def _replied(self, frames: list[bytes], channel: str) -> None:
        message = parse(frames)
        if message is None:
            return
        if frames[0] == OWN:
            if self._interrupt is not None and message.parent_id == self._interrupt[0]:
                self._interrupt = None
            self.queue.reply(message.parent_id, {}, time.monotonic())
            self._own.replied(message)
            return
        if channel == "control":
            self._control.pop(message.parent_id, None)
            self._debugging.replied(message)
        if message.parent_id in self._answered:
            return
        request = self.queue.flying.get(message.parent_id)
        if channel == "shell" and request is not None and request.executes:
            # Those that a client had already sent when its cell failed are in the socket at the latest.
            for more in received(self.front.sockets["shell"], 1 << 20):
                self._from_client_shell(more)
        self._send_front(channel, frames)
        if channel == "shell":
            if message.type == "kernel_info_reply":
                self.kernel_info = message.content()
            self.queue.reply(message.parent_id, message.content(), time.monotonic())

    # --- what goes to the kernel

    def _settle(self) -> None:
        """Take out what is done, answer what was doomed, and let the next one go."""
        for request in list(self.queue.flying.values()):
            if self.queue.landed(request) and not request.own:
                self.waits_for_input = False
        for request in self.queue.take_doomed():
            self._voice.answer(request, ABORTED)
        back = self.back
        if back is not None and not self._interrupting():
            while (following := self.queue.next()) is not None:
                self._comms.note(following.message)
                back.send("shell", following.frames)
        if not self.queue.flying:
            landing, self._landing = self._landing, []
            for future in landing:
                resolve(future, None)
        busy = bool({MOVE, WORKER} & self.queue.holds) and self.back is not None
        if busy != self._busy:
            self._busy = busy
            if busy:
                self._voice.state("busy")
            elif not self.queue.flying:
                self._voice.state("idle")

    def _interrupting(self) -> bool:
        if self._interrupt is not None and time.monotonic() - self._interrupt[1] > INTERRUPT_SECONDS:
            self._interrupt = None
        return self._interrupt is not None

    def _give_up_halves(self) -> None:
        now = time.monotonic()
        for request in list(self.queue.flying.values()):
            if request.half_since is None:
                continue
            patience = HALF_SECONDS if request.replied else REPLY_SECONDS
            if now - max(request.half_since, self._published_at) < patience:
                continue
            log.warning("a kernel never finished its answer to %s", request.message.type)
            if request.own:
                self.queue.forget(request)
                self._own.fail(request.id, "The kernel did not answer: it has no agent of ours.")
            elif request.replied:
                self.queue.forget(request)
                self._voice.state("idle", request.header)
            else:
                content = NEVER_REPLIED if not request.interrupted else failed("KeyboardInterrupt", "")
                self._answered.append(request.id)
                self._voice.reply(request.message, content, "shell")
                self.queue.reply(request.id, content, now)

    def send_own(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        channel: str,
        progress: Progress | None = None,
        back: Back | None = None,
    ) -> tuple[str, Future[dict[str, Any]]]:
        """In the thread: send a request of our own; the future gets its reply's content.

        ``back``: a process that does not answer clients (yet); None: the one that does.
        """
        frames = self._wire.make(msg_type, content, idents=[OWN])
        message = parse(frames)
        assert message is not None
        if back is not None and back is not self.back:
            if not self.candidates.knows(back):
                return message.id, self._own.gone("The process has ended.")
            back.send(channel, frames)
            return message.id, self._own.add(message.id, progress, back)
        if self.back is None or DEAD in self.queue.holds:
            return message.id, self._own.gone("The notebook's kernel is not running.")
        if channel == "shell":
            self.queue.add(request_from(message, frames, own=True))
        else:
            self.back.send(channel, frames)
        return message.id, self._own.add(message.id, progress, self.back)

    def drop_own(self, msg_id: str) -> None:
        """In the thread: nobody waits for this request any more. One that runs is interrupted."""
        if not self._own.drop(msg_id):
            return
        for request in list(self.queue.urgent):
            if request.id == msg_id:
                self.queue.urgent.remove(request)
                return
        if msg_id in self.queue.flying:
            self._interrupt = (self.send_own("interrupt_request", {}, "control")[0], time.monotonic())

    def _line(self, text: str, parent: bytes) -> list[bytes]:
        return self._voice.line(text, parent)

    def fail_flying(self, ename: str, evalue: str) -> str | None:
        """In the thread: answer what runs with an error; return its code."""
        code = self.queue.in_flight
        self._answer_flying(failed(ename, evalue))
        return code

    def _answer_flying(self, content: Mapping[str, Any]) -> None:
        self._answered.extend(self.answering.flying(content))
        self.waits_for_input = False

    def abandon(self) -> None:
        """In the thread: the person restarts or ends the kernel; nothing that was asked will be done."""
        self._answer_flying(ABORTED)
        self.answering.abort_waiting()
        self.answering.forget_said()

    # --- which process answers

    def lose(self, back: Back) -> None:
        """In the thread: the process has ended; what comes from now on waits for another one."""
        if back is self.back:
            self.queue.holds.add(DEAD)
            self._own.fail_all("The notebook's kernel has ended.")
            self.queue.forget_own()

    def switch(self, back: Back, *, anew: bool) -> None:
        """In the thread: let this process answer from now on. ``anew``: it is empty, and clients hear so."""
        old, self.back = self.back, self.candidates.take(back)
        self.kernel_info = back.kernel_info or self.kernel_info
        self._interrupt = None
        self.queue.succeeded = 0
        self.queue.holds.discard(DEAD)
        if old is not None:
            self._own.fail_all("Another process answers for this kernel now.", but=back)
            self.queue.forget_own()
            self.candidates.unwatch(old)
            old.close()
            for comm_id in self._comms.die():
                self._voice.close_comm(comm_id)
            if self._debugging.die():
                self._voice.end_debugging()
                if not anew:
                    self.answering.say(ENDED, "stderr")
        for frames in list(self._control.values()):
            self._ask_again(frames, back)
        if anew:
            self._voice.state("starting")
            if not self._busy:
                self._voice.state("idle")

    def _ask_again(self, frames: list[bytes], back: Back) -> None:
        """What was asked on control and not answered: of the new process, or it is settled by the change."""
        message = parse(frames)
        if message is None or message.type == "shutdown_request":
            return
        if message.type == "interrupt_request":
            self._control.pop(message.id, None)
            self._voice.reply(message, {"status": "ok"}, "control")
            return
        back.send("control", frames)

    def landed(self) -> Future[None]:
        """In the thread: a future that is done when nothing is with the kernel."""
        future: Future[None] = Future()
        self._landing.append(future)
        return future
