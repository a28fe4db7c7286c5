"""What a long queue costs: a decision alone (no I/O), and a whole turn of the reconciler over SQLite.

The alternative beside each row is the queue ten times as short: the cost per lease must stay as it
is. A turn that were quadratic would show as a ratio near 10.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from gpuhub.broker.assembly import Broker
from gpuhub.broker.hostkeys import HostKey
from gpuhub.broker.settings import PolicySettings
from gpuhub.core.ordering import places
from gpuhub.core.policy import decide
from gpuhub.core.rules import Rules
from gpuhub.core.snapshot import Snapshot
from gpuhub.store import Store
from gpuhub.telemetry.sampler import Sampler
from tests.bench.table import show, spread
from tests.builders import NOW, active, pool, queued, record, snapshot, week
from tests.fakes import ClockByHand, GpusByHand, WorkersThatStart, gpus

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


def decisions() -> None:
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
    rows = []
    for waiting, ratio in per_lease(taken).items():
        values = taken[waiting]
        each = statistics.median(values) / (waiting + GPUS)
        rows.append(
            [
                f"{waiting:,}",
                spread([1e3 * seconds for seconds in values], "ms"),
                f"{1 / statistics.median(values):,.0f}",
                f"{1e6 * each:.1f} us",
                ratio,
            ]
        )
    show(["queued", "one decision", "decisions/s", "per lease", "per lease, beside the row above"], rows)


def per_lease(taken: dict[int, list[float]]) -> dict[int, str]:
    """The cost per live lease beside that of the queue before, by the best rounds (noise only adds)."""
    found, before = {}, None
    for waiting, values in taken.items():
        each = min(values) / (waiting + GPUS)
        found[waiting] = "" if before is None else f"{each / before:.2f}×"
        before = each
    return found


@contextlib.asynccontextmanager
async def broker(folder: Path, waiting: int) -> AsyncIterator[tuple[Broker, WorkersThatStart]]:
    """A broker whose GPUs are all held, with a queue behind them; GPUs and time are moved by hand."""
    database = folder / "gpuhub.sqlite"
    store = await Store.open(f"sqlite+aiosqlite:///{database}")
    first, _ = await store.leases.create(record("u0", seq=0), lambda _: {}, key=None, request="")
    multiply(database, first.id, waiting + GPUS)
    backend, clock = WorkersThatStart(gpus(GPUS)), ClockByHand()
    numbers = itertools.count(1)
    made = Broker(
        store,
        backend,
        Sampler(GpusByHand(clock)),
        PolicySettings(),
        clock=clock,
        make_id=lambda: f"new{next(numbers)}",
        make_host_key=lambda: HostKey("ssh-ed25519 host", "host secret"),
    )
    await made.prepare()
    for _ in range(4):
        await made.reconciler.settle()
        await made.reconciler.reconcile()
    try:
        yield made, backend
    finally:
        await made.reconciler.settle()
        await store.close()


def multiply(database: Path, lease_id: str, count: int) -> None:
    """Let the same lease be asked for by ``count`` people: 10 000 requests one by one would take minutes."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM leases WHERE id = ?", (lease_id,)).fetchone())
        copies = [
            {**row, "id": f"{lease_id}-{n}", "user": f"u{n}", "seq": row["seq"] + n} for n in range(1, count)
        ]
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join(f":{name}" for name in row)
        connection.executemany(f"INSERT INTO leases ({names}) VALUES ({marks})", copies)


async def turns() -> None:
    calm: dict[int, list[float]] = {}
    freed: dict[int, list[float]] = {}
    for waiting in QUEUES:
        calm[waiting], freed[waiting] = [], []
        with tempfile.TemporaryDirectory() as folder:
            async with broker(Path(folder), waiting) as (made, backend):
                assert sum(one.queued for one in made.board.live.values()) == waiting
                for _ in range(ROUNDS):
                    calm[waiting].append(await turn(made))
                    backend.exit(next(iter(backend.workers)))
                    freed[waiting].append(await turn(made))
                    for _ in range(3):  # until the new worker is ready
                        await made.reconciler.settle()
                        await made.reconciler.reconcile()
    rows = [
        [
            f"{waiting:,}",
            spread([1e3 * seconds for seconds in calm[waiting]], "ms"),
            per_lease(calm)[waiting],
            spread([1e3 * seconds for seconds in freed[waiting]], "ms"),
            per_lease(freed)[waiting],
        ]
        for waiting in QUEUES
    ]
    show(["queued", "turn, nothing new", "per lease", "a GPU freed and granted anew", "per lease"], rows)


async def turn(made: Broker) -> float:
    began = time.perf_counter()
    await made.reconciler.reconcile()
    return time.perf_counter() - began


def main() -> None:
    decisions()
    print()
    asyncio.run(turns())
    print(f"Beside {GPUS} leases that hold a GPU. Ratios: per live lease, beside the row above.")
