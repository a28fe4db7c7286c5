"""``gpu top``: the status, painted anew at each change.

Promises: on a terminal it stays in place and ends with Ctrl-C; in a pipe each change is a block of
its own; with ``--json`` each is one line.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from gpusession.shell import texts
from gpusession.shell.client import Server
from gpusession.shell.following import now
from gpusession.shell.screen import LABEL_WIDTH, Screen, columns, cut

HISTORY = 60
BARS = "▁▂▃▄▅▆▇█"


def watch(server: Server, screen: Screen) -> None:
    """Follow until Ctrl-C or until the server ends."""
    status: dict[str, Any] = {}
    use: list[float] = []
    painted = 0
    with contextlib.suppress(KeyboardInterrupt):
        for kind, data in server.events():
            if kind == "status":
                status = data
                if status.get("lease") is None:
                    use.clear()
            elif kind == "usage" and status.get("lease") and data.get("usage"):
                status["lease"] |= {"usage": data["usage"], "idle_seconds": data.get("idle_seconds")}
                use = [*use, float(data["usage"]["utilisation_percent"])][-HISTORY:]
            else:
                continue
            if screen.as_json:
                print(json.dumps(status, ensure_ascii=False), file=screen.out, flush=True)
            else:
                painted = _paint(screen, status, use, painted)


def _paint(screen: Screen, status: dict[str, Any], use: list[float], painted: int) -> int:
    lines = texts.status_lines(status, now())
    if use:
        lines.insert(min(2, len(lines)), ("", sparkline(use)))
    if not screen.out.isatty():
        screen.labelled(lines)
        print(file=screen.out, flush=True)
        return 0
    if painted:
        screen.out.write(f"\x1b[{painted}A\x1b[J")
    room = columns() - LABEL_WIDTH - 2
    screen.labelled([(label, cut(text, room)) for label, text in lines])
    return len(lines)


def sparkline(percents: list[float]) -> str:
    """One character for each sample, 0 to 100 %."""
    top = len(BARS) - 1
    return "".join(BARS[round(max(0.0, min(100.0, one)) / 100 * top)] for one in percents)
