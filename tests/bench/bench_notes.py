"""What noting which cell made what costs each cell, beside the same cell without it, by turns."""

from __future__ import annotations

import gc
import time
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from gpusession.state.replay_ledger import Ledger
from tests.bench.table import show, spread

ROUNDS = 200
VARIABLES = (10, 1_000, 10_000)
CELL = "total = sum(n * n for n in range(1000))\nrows = [total, total + 1]"


def main() -> None:
    own = Config({"HistoryManager": {"enabled": False}})
    shell: Any = InteractiveShell.instance(config=own)
    rows = []
    for count in VARIABLES:
        shell.reset(new_session=False)
        shell.user_ns.update({f"v{n}": [n] for n in range(count)})
        taken: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for noted in taken:
                before = {name: [*found] for name, found in shell.events.callbacks.items()}
                if noted:
                    Ledger().follow(shell)
                gc.collect(0)
                began = time.perf_counter()
                shell.run_cell(CELL, store_history=True)
                taken[noted].append((time.perf_counter() - began) * 1e3)
                for name, found in before.items():
                    shell.events.callbacks[name] = found
        extra = [with_notes - without for with_notes, without in zip(taken[True], taken[False], strict=True)]
        rows.append(
            [f"{count:,} variables", *(spread(one, "ms") for one in (taken[False], taken[True], extra))]
        )
    show(["noting what a cell made", "without", "with", "extra, pair by pair"], rows)


if __name__ == "__main__":
    main()
