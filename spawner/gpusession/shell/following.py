"""Waiting in a terminal: for a GPU, for a notebook's move, for a release.

Exists so that every wait looks the same: one live line that says what is waited for, one sentence
at the end, and Ctrl-C that calls it off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from gpulease import errors
from gpusession.shell import codes, texts
from gpusession.shell.client import Server
from gpusession.shell.screen import Screen

Data = dict[str, Any]


def now() -> datetime:
    return datetime.now(UTC)


class Refused(Exception):
    """A wait ended otherwise than hoped for; ``code`` is the exit code."""

    def __init__(self, code: int, data: Data) -> None:
        super().__init__(data["message"])
        self.code, self.data = code, data


def states(server: Server) -> Iterator[Data]:
    """Every new status, the present one first."""
    for kind, data in server.events():
        if kind == "status":
            yield data


def until_active(server: Server, screen: Screen, lease: Data, *, ours: bool) -> Data:
    """Wait for a lease; returns it. Raises Refused when it ended, or was called off by Ctrl-C."""
    try:
        for status in states(server):
            found = status.get("lease")
            if found is not None and found["id"] == lease["id"]:
                lease = found
                if lease["state"] == "active":
                    screen.clear()
                    return lease
                screen.live(f"{texts.waiting_line(lease, now())}  Ctrl-C leaves the line.")
            if found is None or found["id"] != lease["id"] or found["state"] == "ending":
                return _gone(server, lease)
    except KeyboardInterrupt:
        screen.clear()
        if ours:
            with contextlib.suppress(errors.NotFound):
                server.call("DELETE", "lease")
        text = "Cancelled: you are no longer in line." if ours else "Not waiting any more; still in line."
        raise Refused(codes.CANCELLED, {"code": "cancelled", "message": text, "hint": ""}) from None
    raise AssertionError("unreachable: the stream never ends without an error")


def _gone(server: Server, lease: Data) -> Data:
    with contextlib.suppress(errors.GpuhubError):
        past = server.call("GET", "history")["leases"]
        lease = next((one for one in past if one["id"] == lease["id"]), lease)
    failed = lease.get("reason") == "failed"
    text = (lease.get("ending") or {}).get("message") or lease.get("message") or "The request was cancelled."
    data = {"code": "lease-over", "message": text, "hint": "Ask again with `gpu on`."}
    raise Refused(codes.ERROR if failed else codes.CANCELLED, data)


def until_released(server: Server, screen: Screen, lease: Data) -> list[Data]:
    """Wait until the lease has ended; returns the moves of the kernels that came back."""
    back: dict[str, Data] = {}
    for status in states(server):
        for kernel in status["kernels"]:
            move = kernel.get("move")
            if move is None or move["target"] != "server":
                continue
            name = kernel.get("notebook") or f"kernel {kernel['id'][:8]}"
            if move.get("ended_at") is None:
                screen.live(f"{name}: {texts.move_text(move)}")
            elif kernel["id"] not in back and _later(move["ended_at"], lease):
                back[kernel["id"]] = {"notebook": name, **move}
                screen.say(moved_back_line(name, move))
        found = status.get("lease")
        if found is None or found["id"] != lease["id"]:
            screen.clear()
            return list(back.values())
        if not any(
            (kernel.get("move") or {"ended_at": 1})["ended_at"] is None for kernel in status["kernels"]
        ):
            busy = [one["command"] for one in status.get("commands", [])]
            screen.live(f"Waiting for {busy[0]}" if busy else "Releasing the GPU.")
    return list(back.values())


def _later(ended_at: str, lease: Data) -> bool:
    """Whether a move ended in this release, not in one of before."""
    asked = lease.get("asked_at")
    return asked is None or datetime.fromisoformat(ended_at) >= asked


def moved_back_line(name: str, move: Data) -> str:
    began, ended = texts.moment(move["started_at"]), texts.moment(move["ended_at"])
    if move["step"] != "done" or began is None or ended is None:
        return f"{name}: {move['message']}"
    took = (ended - began).total_seconds()
    return f"{name}: moved back, {texts.size(move['bytes_done'])} in {took:.1f} s"


def until_moved(server: Server, screen: Screen, kernel_id: str) -> Data:
    """Wait for a kernel's move to end; returns the kernel. Ctrl-C calls the move off."""
    try:
        for status in states(server):
            kernel = next((one for one in status["kernels"] if one["id"] == kernel_id), None)
            if kernel is None:
                raise errors.NotFound("The notebook was shut down.")
            move = kernel.get("move")
            if move is None or move.get("ended_at") is not None:
                screen.clear()
                return dict(kernel)
            screen.live(f"{texts.move_text(move)}  Ctrl-C calls it off.")
    except KeyboardInterrupt:
        screen.clear()
        server.call("DELETE", f"kernels/{kernel_id}/move")
        data = {"code": "cancelled", "message": "Called off: the notebook stays where it is.", "hint": ""}
        raise Refused(codes.CANCELLED, data) from None
    raise AssertionError("unreachable: the stream never ends without an error")


def open_notebook(server: Server, status: Data, name: str) -> Data:
    """As `find_kernel`, asking for each notebook's name as it is now: one may be new, or renamed."""
    kernels = [server.call("GET", f"kernels/{kernel['id']}") for kernel in status["kernels"]]
    return find_kernel({"kernels": kernels}, name)


def find_kernel(status: Data, name: str) -> Data:
    """Return the open notebook that ``name`` means: its path, its end, or a file of this folder.

    Raises NotFound, BadRequest (more than one).
    """
    there = os.path.abspath(name)
    open_ones = [kernel for kernel in status["kernels"] if kernel.get("notebook")]
    for fits in (
        lambda path: path == name,
        lambda path: there.endswith(f"/{path}"),
        lambda path: path.endswith(f"/{name}") or path.rsplit("/", 1)[-1] == name,
    ):
        found = [kernel for kernel in open_ones if fits(kernel["notebook"])]
        if len(found) == 1:
            return dict(found[0])
        if found:
            paths = ", ".join(kernel["notebook"] for kernel in found)
            raise errors.BadRequest(
                f"More than one open notebook is called {name}: {paths}.", hint="Say which."
            )
    hint = ", ".join(kernel["notebook"] for kernel in open_ones)
    raise errors.NotFound(
        f"No open notebook is called {name}.", hint=f"Open ones: {hint}." if hint else "Open it first."
    )
