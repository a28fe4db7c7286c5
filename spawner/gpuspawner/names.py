"""Names of things that belong to a person's server, safe for folders, sockets, pods and labels.

Promises: the result is a slug (``[a-z0-9-]``, starts with a letter, ends with a letter or digit), it
is short (Unix sockets live in folders of this name, and their paths end at 107 bytes), and two
different (user, server) pairs never share one. A plain name stays readable; anything else is cut to
its readable part and gets a piece of a digest, after three hyphens, which no plain name contains.
"""

from __future__ import annotations

import hashlib
import re

MAX_UNIT_ID = 36
"""Characters. Enough to read, short enough for socket paths."""

_PLAIN = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
_DIGEST = 8


def is_plain(name: str) -> bool:
    """Whether ``name`` can stand for itself: lower case letters, digits, single hyphens inside."""
    return bool(_PLAIN.match(name)) and "--" not in name


def slug(text: str, limit: int) -> str:
    """Return the readable part of ``text``, at most ``limit`` characters; ``x`` where nothing is left."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain[:limit].strip("-") or "x"


def server_unit_id(user: str, server: str = "") -> str:
    """Return the id of a person's server: ``s-ann``, ``s-ann--gpu-1``, ``s-ann-b-x-org---4395b84e``."""
    readable = f"s-{user}--{server}" if server else f"s-{user}"
    if is_plain(user) and (not server or is_plain(server)) and len(readable) <= MAX_UNIT_ID:
        return readable
    digest = hashlib.sha256(f"{user}\0{server}".encode()).hexdigest()[:_DIGEST]
    text = f"{user}-{server}" if server else user
    return f"s-{slug(text, MAX_UNIT_ID - 2 - 3 - _DIGEST)}---{digest}"


def worker_name(prefix: str, lease_id: str) -> str:
    """Return the name of a lease's worker: ``prefix`` and 12 hexadecimal digits, of the id if it has them."""
    digits = lease_id.replace("-", "")[:12]
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        digits = hashlib.sha256(lease_id.encode()).hexdigest()[:12]
    return prefix + digits
