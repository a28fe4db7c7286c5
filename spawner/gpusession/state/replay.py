"""Which cells to run again to get back variables that could not be saved.

The fewest: the last cell that made the variable, those that changed it since, and what these need and is
not there any more, in the order in which they ran. What is there stays as it is; where running a cell
again would set it back, or where it is not what it was when the cell ran, the plan says so, as it says
what else the cells do (files, network, installs). Nothing is run here without being asked, and the person
sees the plan before. Promises: a plan never names a cell whose text is not known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from gpusession.state import notebook, replay_ledger
from gpusession.state.refusals import AGAIN
from gpusession.state.replay_ledger import Ran
from gpusession.state.replay_reading import FILES, HIDDEN, INSTALLS, NETWORK, PROGRAMS, Reading

EFFECTS = {
    FILES: "It writes, moves or deletes files.",
    NETWORK: "It talks to the network.",
    INSTALLS: "It installs packages.",
    PROGRAMS: "It starts programs.",
    HIDDEN: "It runs code that cannot be looked into.",
}
OUTPUT_CHARACTERS = 20_000


@dataclass
class _Cell:
    ran: Ran
    reading: Reading
    for_names: set[str] = field(default_factory=set)

    @property
    def makes(self) -> set[str]:
        """Really made; what the text says counts too: a new object may lie where the old one lay."""
        said = set() if self.ran.failed else self.reading.makes - set(self.ran.gone)
        return set(self.ran.bound) | said


class Planner:
    """One look at what ran. ``present``: the names that are there now."""

    def __init__(
        self, cells: Iterable[tuple[Ran, Reading]], present: Collection[str], targets: Collection[str]
    ) -> None:
        self._cells = {ran.number: _Cell(ran, reading) for ran, reading in cells}
        self._numbers = sorted(self._cells)
        self._imported = {name for one in self._cells.values() for name in one.reading.imports}
        self._targets = set(targets)
        self._present = set(present) - self._targets
        self.cannot: dict[str, str] = {}
        self.warnings: dict[int, list[str]] = {}
        self._chosen: dict[int, _Cell] = {}

    def run(self) -> list[_Cell]:
        """Return the cells in the order in which to run them."""
        for name in sorted(self._targets):
            if not self._bring_back(name, None):
                self.cannot[name] = "No cell that is known made it."
        chosen = [self._chosen[number] for number in sorted(self._chosen)]
        for cell in chosen:
            self._warn(cell)
        return chosen

    def _before(self, number: int | None) -> list[int]:
        return self._numbers if number is None else [one for one in self._numbers if one < number]

    def _bring_back(self, name: str, until: int | None) -> bool:
        """Choose the cells that make ``name`` as it was before cell ``until``; False: no cell did."""
        earlier = self._before(until)
        maker = next((one for one in reversed(earlier) if name in self._cells[one].makes), None)
        if maker is None:
            return False
        self._choose(maker, name)
        for number in earlier:
            if number > maker and name in self._cells[number].reading.changes - self._imported:
                self._choose(number, name)
        return True

    def _choose(self, number: int, name: str) -> None:
        cell = self._cells[number]
        cell.for_names.add(name)
        if number in self._chosen:
            return
        self._chosen[number] = cell
        for needed in sorted(cell.reading.reads):
            self._provide(needed, number, set())

    def _provide(self, name: str, number: int, seen: set[str]) -> None:
        """Have ``name`` there when cell ``number`` runs, and what its code needs, if it is a function."""
        if name in seen:
            return
        seen.add(name)
        earlier = self._before(number)
        maker = next((one for one in reversed(earlier) if name in self._cells[one].makes), None)
        if name not in self._present:
            self._bring_back(name, number)
        elif maker is not None and self._later(name, number, ()):
            self.warnings.setdefault(number, []).append(f"{name} is not what it was when this cell ran.")
        if maker is not None:
            for needed in sorted(self._cells[maker].reading.functions.get(name, ())):
                self._provide(needed, number, seen)

    def _later(self, name: str, number: int, chosen: Collection[int]) -> bool:
        """Did a cell after ``number`` make or change it, but for those that are chosen?"""
        return name not in self._imported and any(
            name in self._cells[one].makes or name in self._cells[one].reading.changes
            for one in self._numbers
            if one > number and one not in chosen
        )

    def _warn(self, cell: _Cell) -> None:
        number = cell.ran.number
        found = self.warnings.setdefault(number, [])
        set_back = [
            name for name in sorted(cell.makes & self._present) if self._later(name, number, self._chosen)
        ]
        if set_back:
            found.append(f"It sets back what later cells made of {', '.join(set_back)}.")
        if cell.ran.failed:
            found.append("It failed when it ran.")
        found.extend(EFFECTS[one] for one in EFFECTS if one in cell.reading.effects)


def lost(shell: Any) -> list[str]:
    """Return the names that cells made and nobody deleted, and that are not there."""
    there: dict[str, None] = {}
    for ran in _ordered(shell):
        there.update(dict.fromkeys(ran.bound))
        for name in ran.gone:
            there.pop(name, None)
    return [name for name in there if name not in shell.user_ns]


def _ordered(shell: Any) -> list[Ran]:
    return sorted(replay_ledger.of(shell).cells.values(), key=lambda one: one.number)


def _planner(shell: Any, names: Collection[str], absent: Collection[str] = ()) -> Planner:
    cells = [
        (ran, replay_ledger.reading(shell, ran.number))
        for ran in _ordered(shell)
        if replay_ledger.source(shell, ran.number)
    ]
    present = [name for name in list(shell.user_ns) if isinstance(name, str) and name not in absent]
    return Planner(cells, present, names)


def plan(shell: Any, names: Collection[str] | None) -> dict[str, Any]:
    """Return a `gpulease.session.RebuildPlan` as plain data. None: for all that is lost."""
    wanted = lost(shell) if names is None else list(names)
    planner = _planner(shell, wanted)
    cells = planner.run()
    return {
        "names": [name for name in wanted if name not in planner.cannot],
        "cells": [
            {
                "number": one.ran.number,
                "code": replay_ledger.raw_source(shell, one.ran.number),
                "makes": sorted(one.for_names),
                "seconds": one.ran.seconds,
                "warnings": planner.warnings.get(one.ran.number, []),
            }
            for one in cells
        ],
        "cannot": [{"name": name, "reason": why} for name, why in planner.cannot.items()],
    }


def cells_for(shell: Any, name: str, absent: Collection[str]) -> list[int]:
    """Return the numbers of the cells that bring ``name`` back where all of ``absent`` is missing too."""
    with contextlib.suppress(RecursionError):
        return [one.ran.number for one in _planner(shell, [name], absent).run()]
    return []


def hint(shell: Any, name: str, otherwise: str, absent: Collection[str]) -> str:
    """Return how the person gets a variable back. ``otherwise``: what is known without the cells."""
    cells = cells_for(shell, name, absent)
    if not cells and (cell := notebook.cell_that_makes(shell, name)) is not None:
        cells = [cell]
    if not cells:
        return otherwise
    if len(cells) == 1:
        way = f"Cell [{cells[0]}] makes it again: re-run it."
    else:
        way = f"Cells {', '.join(f'[{one}]' for one in cells)} make it again: re-run them in this order."
    return way if otherwise == AGAIN else f"{otherwise} {way}"


def run(shell: Any, numbers: Iterable[int], captured: Callable[[], Any]) -> dict[str, Any]:
    """Run cells again, until one fails; return what they printed and which failed."""
    ran: list[int] = []
    printed: list[str] = []
    for number in numbers:
        code = replay_ledger.raw_source(shell, number)
        with captured() as output:
            result = shell.run_cell(code, store_history=True)
        printed.append(f"{output.stdout}{output.stderr}")
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            return {"ran": ran, "failed": number, "error": text, "output": _cut("".join(printed))}
        ran.append(number)
    return {"ran": ran, "failed": None, "error": None, "output": _cut("".join(printed))}


def _cut(text: str) -> str:
    return text if len(text) <= OUTPUT_CHARACTERS else f"{text[:OUTPUT_CHARACTERS]}\n… (cut)"
