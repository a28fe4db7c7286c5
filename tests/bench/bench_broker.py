"""Decisions per second: one look at the whole queue, decided and with everybody's place worked out.

The alternative beside it is the queue ten times as short: a decision that costs more than its length
(quadratic) would show as a ratio far above 1.
"""

from __future__ import annotations

import time

from gpuhub.core.ordering import places
from gpuhub.core.policy import decide
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Snapshot
from tests.bench.table import show, spread
from tests.builders import NOW, active, pool, queued, snapshot, week

QUEUES = (10, 100, 1_000, 10_000)
GPUS = 64
ROUNDS = 7


def world(waiting: int) -> Snapshot:
    """A full house with one GPU just freed; half of those who wait have a limit of hours."""
    rules = (Rules(gpus_at_once=None), Rules(gpus_at_once=2, gpu_hours_per_week=100))
    held = [active(f"h{n}", ends_in_seconds=1000.0 + n) for n in range(GPUS - 1)]
    waits = [queued(f"u{n % 997}", rules[n % 2]) for n in range(waiting)]
    used = {f"u{n}": week((NOW, None, 1)) for n in range(997)}
    return snapshot(*held, *waits, pools=(pool(GPUS, free=1, typical_seconds=3600.0),), week=used)


def main() -> None:
    worlds = {waiting: world(waiting) for waiting in QUEUES}
    taken: dict[int, list[float]] = {waiting: [] for waiting in QUEUES}
    for _ in range(ROUNDS):
        for waiting, snapshot_ in worlds.items():
            repeat = max(1, 1000 // waiting)
            began = time.perf_counter()
            for _ in range(repeat):
                decide(snapshot_, NOW)
                places(snapshot_, NOW)
            taken[waiting].append((time.perf_counter() - began) / repeat)
    rows, before = [], None
    for waiting in QUEUES:
        each = min(taken[waiting]) / (waiting + GPUS)
        ratio = "" if before is None else f"{each / before:.2f}"
        rows.append(
            [
                f"{waiting:,}",
                spread([1e3 * seconds for seconds in taken[waiting]], "ms"),
                f"{1 / min(taken[waiting]):,.0f}",
                f"{1e6 * each:.1f} us",
                ratio,
            ]
        )
        before = each
    show(["queued", "one decision", "decisions/s", "per lease", "per lease, beside the row above"], rows)
