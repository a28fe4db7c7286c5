"""Whose process listens on a port of this machine: read from the kernel's table, no rights needed."""

from __future__ import annotations

from pathlib import Path

LISTEN = "0A"
LOOPBACK = "0100007F"
ANY = "00000000"


def owner(port: int, table: Path = Path("/proc/net/tcp")) -> int | None:
    """Return the uid that listens on 127.0.0.1 (or every address) at ``port``; None: nobody does."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        address, _, hexport = fields[1].partition(":")
        if fields[3] == LISTEN and int(hexport, 16) == port and address in (LOOPBACK, ANY):
            return int(fields[7])
    return None
