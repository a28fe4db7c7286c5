"""``make bench``: every measurement beside its alternative, in one run, as a ratio.

Machines are noisy; the ratios mean something, the absolute times little, and neither much when the
load is far above the number of cores: it is printed with every part. Run one part by name:
``python -m tests.bench move``. A part that fails does not keep the others from being measured.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
import traceback

PARTS = {
    "queue": "what a broker's turn costs with 10 to 10 000 queued leases",
    "coverage": "which classes of objects come back, beside dill, cloudpickle and %store",
    "state": "saving and loading variables, beside the bare disk, np.save and cloudpickle",
    "move": "visible pause of a move, beside restart-and-re-run and dill",
    "notes": "noting which cell made which variable, beside the same cells without it",
    "cells": "empty-cell round trip and output throughput, beside plain Jupyter",
    "scale": "1 000 servers, 200 machines and 500 leases on a real API server, beside plain pods there",
    "memory": "memory of hub, proxy and broker, idle and with 20 servers, beside stock JupyterHub",
}


def main() -> int:
    wanted = sys.argv[1:] or list(PARTS)
    unknown = set(wanted) - set(PARTS)
    if unknown:
        print(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("Medians (least to most).")
    failed = []
    for part in wanted:
        print(f"\n== {part}: {PARTS[part]}", flush=True)
        started, load = time.monotonic(), os.getloadavg()[0]
        try:
            importlib.import_module(f"tests.bench.bench_{part}").main()
        except Exception:  # whatever it was, the others can still be measured
            traceback.print_exc()
            failed.append(part)
        seconds = time.monotonic() - started
        print(
            f"({seconds:.0f} s; load of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after)",
            flush=True,
        )
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
