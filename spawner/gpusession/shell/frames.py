"""The frames that carry a running command between the ``gpu`` command and its server.

Exists because a terminal needs more than HTTP gives: bytes both ways at once, signals and window
sizes that overtake a full input, and an exit status. After the upgrade of ``POST commands`` (see
`gpusession.streams`) both sides speak frames: one byte of kind, four bytes of length (big endian),
then the body. Promises: bytes arrive as they were sent; a reader never has to hold more than
`WINDOW_BYTES` of input, since the writer waits for credit (``CREDIT``) beyond that.
"""

from __future__ import annotations

import json
import struct
from typing import Any

PROTOCOL = "gpuhub-command/1"
"""The name in the HTTP ``Upgrade`` header."""

HEAD = struct.Struct(">BI")
MOST_BYTES = 1024 * 1024
"""No frame is longer; one that says so is not ours."""
CHUNK_BYTES = 64 * 1024
WINDOW_BYTES = 256 * 1024

# from the command line
BEGIN = 1
"""JSON: argv, env, cwd, terminal ({kind, columns, rows} or null), pool, gpus, keep."""
INPUT = 2
INPUT_END = 3
RESIZE = 4
"""JSON: columns, rows."""
SIGNAL = 5
"""JSON: number."""
KILL = 6

# from the server
WAITING = 16
"""JSON: step, message. Said at each change, and once a second while nothing changes."""
STARTED = 17
"""JSON: lease (a Lease)."""
STDOUT = 18
STDERR = 19
CREDIT = 20
"""JSON: bytes of input that were taken."""
NOTICE = 21
"""JSON: message. Something to say to the person while the program runs."""
EXIT = 22
"""JSON: status, as a shell would have it (128 + n for signal n). The last frame."""
FAILED = 23
"""JSON: an error's wire form. The last frame; ``started`` tells whether the program ran."""


class BrokenFrame(Exception):
    """The other side does not speak this."""


def pack(kind: int, body: bytes | dict[str, Any] = b"") -> bytes:
    """Return one frame."""
    data = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    return HEAD.pack(kind, len(data)) + data


def head(data: bytes) -> tuple[int, int]:
    """Return (kind, length of the body). Raises BrokenFrame."""
    kind, length = HEAD.unpack(data)
    if length > MOST_BYTES:
        raise BrokenFrame(f"a frame of {length} bytes")
    return int(kind), int(length)


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object in a frame. Raises BrokenFrame."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise BrokenFrame("not JSON") from error
    if not isinstance(data, dict):
        raise BrokenFrame("not an object")
    return data
