"""``make bench``: every measurement beside its alternative, in one run, as a ratio.

Machines are noisy; the ratios mean something, the absolute times little. Run one part by name:
``python -m tests.bench move``.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time

PARTS = {
    "broker": "decisions per second with 10 to 10 000 queued leases",
    "move": "visible pause of a move, beside restart-and-re-run and dill",
    "cells": "empty-cell round trip and output throughput, beside plain Jupyter",
    "memory": "memory of hub, proxy and broker, idle and with 20 servers, beside stock JupyterHub",
}


def main() -> int:
    wanted = sys.argv[1:] or list(PARTS)
    unknown = set(wanted) - set(PARTS)
    if unknown:
        print(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"
    )
    for part in wanted:
        print(f"\n== {part}: {PARTS[part]}", flush=True)
        started = time.monotonic()
        importlib.import_module(f"tests.bench.bench_{part}").main()
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
