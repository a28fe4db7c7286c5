"""The worker's SSH server: who may come in, and what he may ask for.

Promises: only the key in ``authorized_key`` (read at each connection: a restarted server brings a
new one) comes in, by no other way than a public key; one connection at a time, and a new one
replaces the old. Inside, all that is allowed is: the conversation, attaching to a program that
the conversation started, sockets inside the worker's own runtime folder, and loopback ports.
No shell, no terminal, no other command, no sftp, no agent, no X11, no listening for others.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh

from gpusession.worker.attachment import Attachment
from gpusession.worker.protocol import ALGORITHMS, ATTACH, KEEPALIVE, TALK
from gpusession.worker.talk import Talk
from gpusession.worker.work import Work

log = logging.getLogger(__name__)

LOGIN_SECONDS = 15.0
MAX_KEY_BYTES = 4096
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Door:
    """All connections to one worker."""

    def __init__(self, work: Work, runtime: Path, authorized_key: Path, *, mounted: bool = False) -> None:
        """``mounted``: the key's folder is a mounted Secret, whose files are links within it."""
        self.work, self.runtime, self._authorized_key = work, runtime, authorized_key
        self._mounted = mounted
        self._inside: Gate | None = None

    def options(self, host_key: asyncssh.SSHKey) -> dict[str, Any]:
        """What `asyncssh.listen` is to be given."""
        return {
            "server_factory": lambda: Gate(self),
            "server_host_keys": [host_key],
            "config": None,
            "encoding": None,
            "login_timeout": LOGIN_SECONDS,
            "public_key_auth": True,
            "password_auth": False,
            "kbdint_auth": False,
            "host_based_auth": False,
            "gss_host": None,
            "gss_kex": False,
            "gss_auth": False,
            "allow_pty": False,
            "line_editor": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "allow_scp": False,
            **ALGORITHMS,
            **KEEPALIVE,
        }

    def allows(self, key: asyncssh.SSHKey) -> bool:
        """Whether this is the key that may come in now."""
        try:
            path = self._key_file()
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                allowed = asyncssh.import_public_key(file.read(MAX_KEY_BYTES))
        except (OSError, asyncssh.KeyImportError, ValueError) as error:
            log.error("the authorized key cannot be read: %s", error)
            return False
        return bool(allowed.public_data == key.public_data)

    def _key_file(self) -> str:
        """Where the key is now. Raises ValueError where a link leads out of the mount."""
        if not self._mounted:
            return str(self._authorized_key)
        path, folder = os.path.realpath(self._authorized_key), os.path.realpath(self._authorized_key.parent)
        if not path.startswith(f"{folder}/"):
            raise ValueError("it leads out of its folder")
        return path

    def entered(self, gate: Gate) -> None:
        old, self._inside = self._inside, gate
        if old is not None:
            log.info("a new connection replaces the old one")
            old.turn_out()

    def left(self, gate: Gate) -> None:
        if self._inside is gate:
            self._inside = None

    def close(self) -> None:
        if self._inside is not None:
            self._inside.turn_out()

    def reaches(self, path: str) -> bool:
        """Whether ``path`` is a socket inside the runtime folder, and is what it says it is."""
        root = os.path.realpath(self.runtime)
        if not path.startswith(f"{root}/") or os.path.normpath(path) != path or "\0" in path:
            return False
        if os.path.realpath(path) != path:
            return False
        try:
            info = os.lstat(path)
        except OSError:
            return False
        return stat.S_ISSOCK(info.st_mode) and info.st_uid == os.geteuid()


class Gate(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._connection: asyncssh.SSHServerConnection | None = None
        self._talk: Talk | None = None
        self._admitted = False

    # --- Owner

    def tell(self, event: Any) -> None:
        if self._talk is not None:
            self._talk.say(event)

    # --- asyncssh.SSHServer

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.left(self)
        if self._admitted:
            self._admitted = False
            log.info("the connection is gone: %s", exc or "closed")
            self._door.work.lost(self)

    def turn_out(self) -> None:
        """End the connection without waiting for the other side, which may be gone."""
        if self._connection is not None:
            self._connection.abort()
        self.connection_lost(None)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._door.allows(key)

    def auth_completed(self) -> None:
        self._admitted = True
        self._door.entered(self)
        self._door.work.met(self)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return Channel(self._ask)

    def _ask(self, command: str) -> asyncssh.SSHServerSession[bytes] | None:
        """Return what serves a command's channel; None: refused."""
        if not self._admitted:
            return None
        if command == TALK and self._talk is None:
            self._talk = Talk(self._door.work, self)
            return self._talk
        verb, _, target = command.partition(" ")
        if verb == ATTACH and self._talk is not None:
            return Attachment.to(self._door.work, target)
        return None

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_host in LOOPBACK

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._door.reaches(dest_path)


class Channel(asyncssh.SSHServerSession[bytes]):
    """A session channel that becomes what its command says, or nothing."""

    def __init__(self, ask: Callable[[str], asyncssh.SSHServerSession[bytes] | None]) -> None:
        self._ask = ask
        self._chan: Any = None
        self._served_by: Any = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> bool:
        return False

    def shell_requested(self) -> bool:
        return False

    def subsystem_requested(self, subsystem: str) -> bool:
        return False

    def exec_requested(self, command: str) -> bool:
        self._served_by = self._ask(command)
        if self._served_by is None:
            return False
        self._served_by.connection_made(self._chan)
        return True

    def session_started(self) -> None:
        self._served_by.session_started()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._served_by.data_received(data, datatype)

    def eof_received(self) -> bool:
        return bool(self._served_by is not None and self._served_by.eof_received())

    def pause_writing(self) -> None:
        if self._served_by is not None:
            self._served_by.pause_writing()

    def resume_writing(self) -> None:
        if self._served_by is not None:
            self._served_by.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._served_by is not None:
            self._served_by.connection_lost(exc)
