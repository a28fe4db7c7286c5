"""Processes beside the one that answers: asked until they answer, then ready to be switched to.

Exists because publications are lost until a subscription has arrived: only a reply *and* its idle
prove that a process can take over without losing output. Runs in the relay's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import zmq

from gpusession.kernels.ownrequests import OWN, OwnRequests
from gpusession.kernels.sockets import Back, received
from gpusession.kernels.wire import Message, Wire, parse

PROBE_SECONDS = 0.1
AT_ONCE = 500


class Candidates:
    """The processes that may take over."""

    def __init__(self, context: zmq.Context[Any], wire: Wire, poller: zmq.Poller, own: OwnRequests) -> None:
        self._context, self._wire, self._poller, self._own = context, wire, poller, own
        self._identity = f"gpuhub-{wire.session}".encode()
        self._backs: list[Back] = []

    @property
    def probing(self) -> bool:
        return any(back.on_proven is not None for back in self._backs)

    def knows(self, back: Back) -> bool:
        return back in self._backs

    def connect(
        self, channels: Mapping[str, str], on_proven: Callable[[], None], *, with_control: bool
    ) -> Back:
        """Connect to a process and ask it until it answers."""
        needed = frozenset({"shell", "control"} if with_control else {"shell"})
        back = Back(self._context, channels, self._identity, needed)
        back.on_proven = on_proven
        self._backs.append(back)
        for socket in back.sockets.values():
            self._poller.register(socket, zmq.POLLIN)
        return back

    def discard(self, back: Back) -> None:
        """Forget a process. Nothing of it is passed on any more."""
        if back in self._backs:
            self._backs.remove(back)
            self.unwatch(back)
            back.close()

    def take(self, back: Back) -> Back:
        """It answers from now on: it is no candidate any more."""
        self._backs.remove(back)
        back.on_proven = None
        return back

    def unwatch(self, back: Back) -> None:
        for socket in back.sockets.values():
            self._poller.unregister(socket)

    def close(self) -> None:
        for back in self._backs:
            back.close()

    def probe(self, now: float) -> None:
        for back in self._backs:
            if back.on_proven is None or now - back.probed_at < PROBE_SECONDS:
                continue
            back.probed_at = now
            for channel in ("control", "shell"):
                header = self._wire.header("kernel_info_request")
                back.probes.add(header["msg_id"])
                frames = self._wire.make("kernel_info_request", {}, idents=[OWN], header=header)
                back.send(channel, frames)

    def hear(self, events: Mapping[Any, int]) -> None:
        for back in list(self._backs):
            for channel in ("shell", "control", "iopub"):
                if back.sockets[channel] in events:
                    for frames in received(back.sockets[channel], AT_ONCE):
                        message = parse(frames)
                        if message is not None:
                            self._heard(back, channel, message, own=frames[0] == OWN)
            if back.proven and back.on_proven is not None:
                tell, back.on_proven = back.on_proven, None
                tell()

    def _heard(self, back: Back, channel: str, message: Message, *, own: bool) -> None:
        if message.parent_id in back.probes:
            if channel == "iopub":
                back.idle = back.idle or message.content().get("execution_state") == "idle"
            elif message.type == "kernel_info_reply":
                back.replied.add(channel)
                back.kernel_info = message.content()
        elif channel == "iopub":
            self._own.published(message)
        elif own:
            self._own.replied(message)
