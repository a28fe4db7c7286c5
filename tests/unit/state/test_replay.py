"""Which cells bring back what could not be saved: the fewest, in order, with what they do beside that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpusession.state.replay_reading import read_cell
from tests.unit.state.processes import Shell, verdicts

DATABASE = (
    "import sqlite3",
    "path = ':memory:'",
    "conn = sqlite3.connect(path)",
    "total = 5",
    "conn.execute('create table t (n)')",
    "conn.execute('insert into t values (7)')\ntotal += 1",
    "rows = list(conn.execute('select n from t'))",
)


def plan(shell: Shell, names: Sequence[str] | None = None) -> dict[str, Any]:
    found = shell.handle("plan", names=names)
    assert "code" not in found, found
    return found


def numbers(planned: dict[str, Any]) -> list[int]:
    return [one["number"] for one in planned["cells"]]


def warnings(planned: dict[str, Any]) -> dict[int, list[str]]:
    return {one["number"]: one["warnings"] for one in planned["cells"] if one["warnings"]}


def moved(first: Shell, second: Shell, snapshots: Path, *cells: str) -> None:
    """Run the cells in one process and load what could be saved in another."""
    first.run(*cells)
    second.load(snapshots / first.save(snapshots, accept="all")["snapshot"])


def test_the_maker_and_what_changed_it_since_and_nothing_else(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    moved(first, second, snapshots, *DATABASE)
    planned = plan(second)
    assert planned["names"] == ["conn"]
    assert numbers(planned) == [3, 5, 6]
    assert [one["code"] for one in planned["cells"]] == [DATABASE[2], DATABASE[4], DATABASE[5]]
    assert planned["cannot"] == []


def test_the_verdict_names_the_cells(first: Shell, snapshots: Path) -> None:
    first.run(*DATABASE)
    saved = verdicts(first.save(snapshots, accept="all"))
    assert saved["conn"]["hint"].endswith("Cells [3], [5], [6] make it again: re-run them in this order.")


def test_running_the_plan_gives_the_variable_back(first: Shell, second: Shell, snapshots: Path) -> None:
    moved(first, second, snapshots, *DATABASE)
    cells = numbers(plan(second))
    result = second.handle("rebuild", names=None, cells=cells)
    assert (result["ran"], result["failed"]) == (cells, None)
    assert second.value("conn.execute('select n from t').fetchall()") == "[(7,)]"
    assert plan(second) == {"names": [], "cells": [], "cannot": []}


def test_what_a_maker_needs_and_is_gone_too_is_made_first(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    moved(
        first,
        second,
        snapshots,
        "import sqlite3",
        "conn = sqlite3.connect(':memory:')",
        "text = 'select 3'\ndef make():\n    return conn.execute(text)",
        "unrelated = 1",
        "cursor = make()",
    )
    planned = plan(second, ["cursor"])
    assert numbers(planned) == [2, 5]
    assert second.handle("rebuild", names=["cursor"], cells=numbers(planned))["failed"] is None
    assert second.value("cursor.fetchone()") == "(3,)"


def test_a_dependency_that_a_function_hides_is_found(first: Shell) -> None:
    first.run(
        "handle = open('/dev/null')", "def read():\n    return handle.read()", "gen = (read() for _ in '1')"
    )
    first.run("del handle, gen")
    assert numbers(plan(first, ["gen"])) == [1, 3]


def test_a_variable_that_was_deleted_is_not_missed(first: Shell) -> None:
    first.run("x = 1", "del x")
    assert plan(first)["names"] == []


def test_what_a_cell_would_set_back_is_said(first: Shell, second: Shell, snapshots: Path) -> None:
    moved(
        first,
        second,
        snapshots,
        "file = open('/dev/null'); seen = []; total = 0",
        "seen.append(1); total += 9",
    )
    assert warnings(plan(second)) == {1: ["It sets back what later cells made of seen, total."]}


def test_what_is_different_by_now_is_said(first: Shell, second: Shell, snapshots: Path) -> None:
    moved(first, second, snapshots, "n = '/dev/null'", "file = open(n)", "n = 100")
    assert warnings(plan(second)) == {2: ["n is not what it was when this cell ran."]}


@pytest.mark.parametrize(
    ("cell", "warning"),
    [
        ("open('x.txt', 'w').close()", "It writes, moves or deletes files."),
        ("import pathlib; pathlib.Path('x').write_text('')", "It writes, moves or deletes files."),
        ("import urllib.request as u, urllib\nif 0: urllib.request.urlopen('x')", "It talks to the network."),
        ("!true", "It starts programs."),
        ("import subprocess; subprocess.run(['true'])", "It starts programs."),
        ("if 0: get_ipython().system('pip install x')", "It installs packages."),
        ("exec('1')", "It runs code that cannot be looked into."),
    ],
)
def test_side_effects_are_said(first: Shell, work: Path, cell: str, warning: str) -> None:
    first.run(f"{cell}\ngen = (n for n in '1')", "del gen")
    assert warnings(plan(first, ["gen"])) == {1: [warning]}


def test_printing_and_reading_files_is_no_warning(first: Shell) -> None:
    first.run("print('x'); open('/dev/null').close(); gen = iter(open('/dev/null'))", "del gen")
    assert warnings(plan(first, ["gen"])) == {}


def test_a_cell_that_failed_counts_for_what_it_made(first: Shell) -> None:
    first.ask(run="half = (n for n in '1')\n1 / 0\nnever = 1")
    first.run("del half")
    planned = plan(first, ["half", "never"])
    assert (numbers(planned), planned["names"]) == ([1], ["half"])
    assert warnings(planned) == {1: ["It failed when it ran."]}
    assert [one["name"] for one in planned["cannot"]] == ["never"]


def test_a_cell_that_fails_now_ends_it_with_its_error(first: Shell) -> None:
    first.run("def f(): return 1", "x = f()", "y = x + 1", "del x, y\ndef f(): raise OSError('gone')")
    planned = plan(first, ["y"])
    assert numbers(planned) == [2, 3]
    result = first.handle("rebuild", names=["y"], cells=numbers(planned))
    assert (result["ran"], result["failed"], result["error"]) == ([], 2, "OSError: gone")
    assert first.value("'y' in globals()") == "False"


def test_consent_is_for_the_cells_that_were_shown(first: Shell) -> None:
    first.run("a = 1", "b = a", "del a, b")
    assert numbers(plan(first, ["b"])) == [1, 2]
    assert first.handle("rebuild", names=["b"], cells=[2])["code"] == "conflict"
    assert first.handle("rebuild", names=["b"], cells=["2; import os"])["code"] == "bad-request"
    assert first.handle("rebuild", names=[3], cells=[])["code"] == "bad-request"
    assert first.value("'b' in globals()") == "False"


def test_rubbish_names_are_told_and_harm_nothing(first: Shell) -> None:
    first.run("x = 1")
    planned = plan(first, ["", "no such", "__class__", "../x", "x" * 500])
    assert planned["cells"] == []
    assert len(planned["cannot"]) == 5


def test_no_object_is_kept_alive_by_the_notes(first: Shell) -> None:
    first.run("import weakref\nclass Big: pass\nbig = Big(); seen = weakref.ref(big)")
    assert first.value("big is seen()") == "True"
    first.run("del big\nOut.clear(); _ = __ = ___ = None\nalive = seen() is not None")
    assert first.value("alive") == "False"


@pytest.mark.parametrize(
    ("source", "reads", "makes", "changes"),
    [
        ("a = b + c", "bc", "a", ""),
        ("a = 1; b = a", "", "ab", ""),
        ("a[b] = c", "abc", "", "a"),
        ("a.append(b)", "ab", "", "ab"),
        ("print(a)", "a", "", ""),
        ("a += b", "ab", "a", "a"),
        ("x = [i * a for i in b]", "ab", "x", ""),
        ("for i in a: b.append(i)", "ab", "i", "bi"),
        ("with a as b: c = b", "a", "bc", ""),
        ("f = lambda x: x + a", "a", "f", ""),
        ("def f(x=a):\n    return x + b", "a", "f", ""),
        ("class C(a):\n    y = b\n    def m(self): return c", "ab", "C", ""),
        ("(a, *b), c.d = e", "ce", "ab", "c"),
        ("if (n := a): b = n", "a", "bn", ""),
        ("try: a\nexcept b as e: c = e", "abe", "c", ""),
        ("await a.b(c)", "ac", "", "ac"),
        ("this is no python", "", "", ""),
    ],
)
def test_what_a_cell_reads_makes_and_changes(source: str, reads: str, makes: str, changes: str) -> None:
    found = read_cell(source)
    assert found.reads == set(reads)
    assert found.makes == set(makes)
    assert found.changes == set(changes)


def test_no_text_breaks_the_reader() -> None:
    for source in ("(" * 5000, "x = " + "-" * 50_000 + "1", "\0", "a" * 2_000_000, "é = ''", "\ud800"):
        read_cell(source)
