"""Jupyter's messages as they travel over ZeroMQ: parsed, checked and signed.

Exists because the relay must read headers of messages that it passes on untouched, and must
itself answer in a kernel's name. Promises: what is passed on keeps its bytes; what is made here
is signed with the kernel's key; a message that cannot be read is `None`, never an exception.
Format: https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

DELIMITER = b"<IDS|MSG>"
PROTOCOL = "5.4"
EMPTY = b"{}"


@dataclass(frozen=True)
class Message:
    """One message: its parts as bytes, its header and parent header parsed."""

    idents: list[bytes]
    signature: bytes
    parts: list[bytes]
    """Header, parent header, metadata, content, then buffers: as they came."""
    header: dict[str, Any]
    parent: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.header.get("msg_id", ""))

    @property
    def type(self) -> str:
        return str(self.header.get("msg_type", ""))

    @property
    def parent_id(self) -> str:
        return str(self.parent.get("msg_id", ""))

    def content(self) -> dict[str, Any]:
        """Parse the content; {} when it is not an object."""
        return _object(self.parts[3])


def parse(frames: Sequence[bytes]) -> Message | None:
    """Read a message; None when it is not one."""
    try:
        at = frames.index(DELIMITER)
        parts = list(frames[at + 2 :])
        if len(parts) < 4:
            return None
        header, parent = json.loads(parts[0]), json.loads(parts[1])
    except ValueError:
        return None
    if not isinstance(header, dict):
        return None
    return Message(
        list(frames[:at]), frames[at + 1], parts, header, parent if isinstance(parent, dict) else {}
    )


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def pack(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=True).encode("utf-8", "surrogatepass")


class Wire:
    """Signs and checks with one kernel's key, and makes messages of one session of our own."""

    def __init__(
        self,
        key: bytes,
        session: str,
        new_id: Callable[[], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._auth = hmac.new(key, digestmod=hashlib.sha256) if key else None
        self.session, self._new_id, self._now = session, new_id, now

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the signature of header, parent header, metadata and content."""
        if self._auth is None:
            return b""
        auth = self._auth.copy()
        for part in parts[:4]:
            auth.update(part)
        return auth.hexdigest().encode()

    def genuine(self, message: Message) -> bool:
        """Whether the sender knows the key."""
        return self._auth is None or hmac.compare_digest(message.signature, self.sign(message.parts))

    def header(self, msg_type: str) -> dict[str, Any]:
        return {
            "msg_id": self._new_id(),
            "msg_type": msg_type,
            "username": "gpuhub",
            "session": self.session,
            "date": self._now().isoformat(),
            "version": PROTOCOL,
        }

    def make(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        idents: Sequence[bytes] = (),
        parent: bytes = EMPTY,
        metadata: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """Return the frames of a signed message; ``parent`` is a header as it came."""
        parts = [pack(header or self.header(msg_type)), parent, pack(metadata or {}), pack(content)]
        return [*idents, DELIMITER, self.sign(parts), *parts]

    def started(self) -> dict[str, str]:
        """The metadata that kernels put into replies."""
        return {"started": self._now().isoformat()}
