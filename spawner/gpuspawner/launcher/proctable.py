"""What runs on this machine, as one consistent look at ``/proc``.

Finding *every* process of a unit is the launcher's hardest promise, so this reads what the kernel
says (parent, session, start time) instead of trusting pid numbers: a process is known by pid *and*
start time, and signals go through a pidfd after both were compared, so that a number that was
given to somebody else in between is never hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpuspawner.launcher.protocol import RUN_MARKER

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAX_ENVIRON_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Identity:
    """A process that can not be mistaken for another one of the same boot."""

    pid: int
    start: int
    """Clock ticks since boot."""


@dataclass(frozen=True)
class Process:
    """One row of the table."""

    pid: int
    start: int
    parent: int
    session: int
    name: str
    zombie: bool
    cpu_seconds: float
    rss_bytes: int

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start)


def read(pid: int) -> Process | None:
    """Return what ``/proc`` says of ``pid``; None when it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, parentheses and spaces too.
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    if len(fields) < 22:
        return None
    return Process(
        pid=pid,
        start=int(fields[19]),
        parent=int(fields[1]),
        session=int(fields[3]),
        name=head.partition(b"(")[2].decode("utf-8", "replace"),
        zombie=fields[0] in (b"Z", b"X"),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
        rss_bytes=int(fields[21]) * PAGE_BYTES,
    )


def alive(identity: Identity | None) -> bool:
    """Return whether this very process runs (a zombie does not)."""
    if identity is None:
        return False
    process = read(identity.pid)
    return process is not None and process.start == identity.start and not process.zombie


def send(identity: Identity, number: int) -> bool:
    """Send a signal to this very process. False: it no longer exists."""
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        process = read(identity.pid)
        if process is None or process.start != identity.start:
            return False
        signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def owner(pid: int) -> int | None:
    """Return the uid that ``pid`` belongs to."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def marker(pid: int) -> str | None:
    """Return the start that the environment of ``pid`` names, where it still does."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read(MAX_ENVIRON_BYTES)
    except OSError:
        return None
    wanted = RUN_MARKER.encode() + b"="
    for entry in environ.split(b"\0"):
        if entry.startswith(wanted):
            return entry[len(wanted) :].decode("ascii", "replace")
    return None


class ProcessTable:
    """One look at all processes."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self.by_pid: Mapping[int, Process] = {process.pid: process for process in processes}
        self._children: dict[int, list[Process]] = {}
        for process in self.by_pid.values():
            self._children.setdefault(process.parent, []).append(process)

    @classmethod
    def look(cls) -> ProcessTable:
        found = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return cls(process for process in found if process is not None)

    def get(self, identity: Identity | None) -> Process | None:
        if identity is None:
            return None
        process = self.by_pid.get(identity.pid)
        return process if process is not None and process.start == identity.start else None

    def descendants(self, roots: Iterable[Identity]) -> set[Identity]:
        """Return all that stem from ``roots``, without the roots themselves."""
        found: set[Identity] = set()
        todo = [root for root in roots if self.get(root) is not None]
        while todo:
            parent = todo.pop()
            for child in self._children.get(parent.pid, ()):
                # A child is never older than its parent: else the number was given away.
                if child.start >= parent.start and child.identity not in found:
                    found.add(child.identity)
                    todo.append(child.identity)
        return found

    def session_of(self, leader: Identity) -> set[Identity]:
        """Return the processes of the session that ``leader`` opened, itself included."""
        now = self.by_pid.get(leader.pid)
        if now is not None and now.start != leader.start:
            return set()  # the number belongs to somebody else: so does the session
        return {
            process.identity
            for process in self.by_pid.values()
            if process.session == leader.pid and process.start >= leader.start
        }

    def marked(self, run: str, uid: int) -> set[Identity]:
        """Return the processes of ``uid`` whose environment names the start ``run``.

        Others' processes do not count: a marker is only text that anybody can set.
        """
        return {
            process.identity
            for process in self.by_pid.values()
            if owner(process.pid) == uid and marker(process.pid) == run
        }
