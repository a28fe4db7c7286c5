"""Every class of the list comes back whole and as one object, or is named with its reason: none is wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.unit.state.classes import ORDINARY, Kind
from tests.unit.state.processes import Shell, verdicts

pytestmark = pytest.mark.timeout(600)


SAME = "(alias_[0] is it or type(it) in (int, float))"
"""A number has no identity that Python promises."""


class Trip:
    """All kinds of a list made, each with an alias, in one process, and asked for in another.

    The entries use the same names: what each made lies in a dictionary of its own meanwhile.
    """

    def __init__(self, folder: Path, kinds: list[Kind]) -> None:
        (folder / "work").mkdir()
        self.wrong: dict[str, str] = {}
        self.left: dict[str, str] = {}
        with Shell(folder / "work") as before:
            for number, kind in enumerate(kinds):
                before.run(kind.made)
                names = {name for node in ast.walk(ast.parse(kind.made)) for name in bound(node)}
                before.run(f"made{number} = {{n: globals()[n] for n in {sorted(names)} if n in globals()}}")
                before.run(f"made{number}['alias_'] = [it]; del it")
            saved = before.save(folder / "snapshots", accept="all")
        with Shell(folder / "work") as after:
            after.load(folder / "snapshots" / saved["snapshot"])
            found = verdicts(saved)
            for number, kind in enumerate(kinds):
                one = found[f"made{number}"]
                if one["verdict"] == "left":
                    self.left[kind.name] = one["reason"]
                    continue
                after.ask(run=f"globals().update(made{number})")
                answer = after.ask(run=f"print({SAME} and bool({kind.true}))")
                if answer["text"].strip() != "True":
                    self.wrong[kind.name] = answer["error"] or answer["text"]


def bound(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return [node.asname or node.name.partition(".")[0]] if isinstance(node, ast.alias) else []


LIBRARIES = sorted({kind.library for kind in ORDINARY})


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_class_of_a_library_comes_back_whole_or_is_named(library: str, tmp_path: Path) -> None:
    kinds = [kind for kind in ORDINARY if kind.library == library]
    trip = Trip(tmp_path, kinds)
    assert trip.wrong == {}
    expected = {kind.name: kind.reason for kind in kinds if kind.reason}
    assert set(trip.left) == set(expected), trip.left
    assert [name for name, reason in expected.items() if reason not in trip.left[name]] == []


def test_the_list_has_more_classes_than_the_paper() -> None:
    assert len({(kind.library, kind.name) for kind in ORDINARY}) >= 146
