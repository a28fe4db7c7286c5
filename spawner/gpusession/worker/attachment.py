"""The channel that carries one program's bytes.

Promises: the slower side stops the faster one; the end of the output is said only after all of it
was sent, and the channel is closed by the other side, which knows when it has read everything.
"""

from __future__ import annotations

import contextlib
from typing import Any

import asyncssh

from gpulease.errors import GpuhubError
from gpusession.worker.program import STDERR, Program
from gpusession.worker.work import Work


class Attachment(asyncssh.SSHServerSession[bytes]):
    """A `program.Reader` over SSH."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._chan: Any = None

    @classmethod
    def to(cls, work: Work, target: str) -> Attachment | None:
        """Return the way to a program that nobody else is attached to, or None."""
        with contextlib.suppress(GpuhubError):
            program = work.program(target)
            if not program.attached:
                return cls(program)
        return None

    # --- asyncssh.SSHServerSession

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def session_started(self) -> None:
        try:
            self._program.attach(self)
        except GpuhubError:
            self._chan.close()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._program.feed(data)

    def eof_received(self) -> bool:
        self._program.feed_end()
        return True

    def pause_writing(self) -> None:
        self._program.flow(False)

    def resume_writing(self) -> None:
        self._program.flow(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._program.detach(self)

    # --- program.Reader

    def output(self, stream: str, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the channel is closing
            self._chan.write(data, asyncssh.EXTENDED_DATA_STDERR if stream == STDERR else None)

    def output_ended(self) -> None:
        with contextlib.suppress(OSError):
            self._chan.write_eof()

    def want_input(self, wanted: bool) -> None:
        if wanted:
            self._chan.resume_reading()
        else:
            self._chan.pause_reading()
