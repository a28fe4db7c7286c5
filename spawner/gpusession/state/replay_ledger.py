"""Which cell really made which variables: noted while cells run, and carried with the state.

What a cell's text says (`gpusession.state.replay_reading`) is checked against what was there before and
after it. Promises: a cell costs two looks at the names of the namespace and nothing else (bench: the row
"noting what a cell made"); no object is kept alive by it; nothing is shown to the person.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from gpusession.state.replay_reading import Reading, read_cell

MOST_CELLS = 20_000
"""Older ones are forgotten: their variables have long been made anew."""


@dataclass
class Ran:
    """One cell that ran."""

    number: int
    bound: list[str]
    """Names that mean another object than before."""
    gone: list[str]
    failed: bool
    seconds: float


class Ledger:
    """Of one shell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.cells: dict[int, Ran] = {}
        self._running: list[tuple[dict[str, int], float] | None] = []

    def follow(self, shell: Any) -> None:
        """Note every cell that this shell runs from now on."""

        def before(info: Any) -> None:
            self._running.append((_ids(shell), self._clock()) if info.store_history else None)

        def after(result: Any) -> None:
            held = self._running.pop() if self._running else None
            number = result.execution_count
            if held is None or not isinstance(number, int):
                return
            known, began = held
            there = shell.user_ns.copy()
            bound = [name for name, value in there.items() if known.get(name) != id(value)]
            new = sum(name not in known for name in bound)
            gone = known.keys() - there.keys() if len(known) + new != len(there) else ()
            self.note(
                Ran(
                    number,
                    [name for name in bound if _is_theirs(name)],
                    [name for name in gone if _is_theirs(name)],
                    not result.success,
                    round(self._clock() - began, 3),
                )
            )

        shell.events.register("pre_run_cell", before)
        shell.events.register("post_run_cell", after)

    def overlook(self) -> None:
        """What the running cell makes is not of its making: it restores a saved state."""
        self._running = [None for _ in self._running]

    def note(self, ran: Ran) -> None:
        self.cells.pop(ran.number, None)
        self.cells[ran.number] = ran
        if len(self.cells) > MOST_CELLS:
            del self.cells[next(iter(self.cells))]


def _ids(shell: Any) -> dict[str, int]:
    names = shell.user_ns.copy()  # in one go: the person's own threads may add to it
    return dict(zip(names, map(id, names.values()), strict=True))


def _is_theirs(name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("_") and name not in ("In", "Out")


_LEDGERS: WeakKeyDictionary[Any, Ledger] = WeakKeyDictionary()


def of(shell: Any) -> Ledger:
    return _LEDGERS.setdefault(shell, Ledger())


def source(shell: Any, number: int) -> str:
    """Return a cell's text as Python reads it; "" if it is not known."""
    cells = shell.user_ns.get("In", [])
    text = cells[number] if isinstance(cells, list) and 0 < number < len(cells) else ""
    return text if isinstance(text, str) else ""


def raw_source(shell: Any, number: int) -> str:
    """Return a cell's text as the person wrote it."""
    cells = getattr(shell.history_manager, "input_hist_raw", [])
    text = cells[number] if 0 < number < len(cells) else ""
    return text if isinstance(text, str) and text else source(shell, number)


def reading(shell: Any, number: int) -> Reading:
    return read_cell(source(shell, number))


# --- with the state


def capture(shell: Any) -> Any:
    cells = of(shell).cells.values()
    return [[one.number, one.bound, one.gone, one.failed, one.seconds] for one in cells] or None


def restore(shell: Any, saved: Any) -> None:
    ledger = of(shell)
    for number, bound, gone, failed, seconds in saved:
        ledger.note(Ran(int(number), [*map(str, bound)], [*map(str, gone)], bool(failed), float(seconds)))
