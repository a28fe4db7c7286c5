"""What is in the table comes back as it was, or is named with a reason and a way back: nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.state.objects import PYTHON, SCIENCE, Thing
from tests.unit.state.processes import Shell, verdicts

pytestmark = pytest.mark.timeout(300)


class Journey:
    """All things of a table made in one process, saved, and loaded in another."""

    def __init__(self, folder: Path, things: list[Thing]) -> None:
        (folder / "work").mkdir()
        with Shell(folder / "work") as before:
            for thing in things:
                if thing.made:
                    before.run(thing.made)
            self.saved = before.save(folder / "snapshots", accept="all")
            self.unchanged = {t.id: before.value(t.true) for t in things if t.true and t.id in UNHARMED}
        with Shell(folder / "work") as after:
            self.loaded = after.load(folder / "snapshots" / self.saved["snapshot"])
            self.true = {thing.id: after.ask(run=f"print({thing.true})") for thing in things if thing.true}
            self.names = after.value("sorted(globals())")


UNHARMED = {"aliases", "views", "copy-on-write", "figure"}
"""Whose checks hold before the save too: run in the old process after the save, which must not touch it."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return Journey(tmp_path_factory.mktemp("python"), PYTHON)


@pytest.fixture(scope="module")
def science(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return Journey(tmp_path_factory.mktemp("science"), SCIENCE)


def check(journey: Journey, thing: Thing) -> None:
    if thing.true:
        answer = journey.true[thing.id]
        assert answer["error"] is None, answer["error"]
        assert answer["text"].strip() == "True"
    found: dict[str, Any] = verdicts(journey.saved)
    for name in thing.left:
        assert found[name]["verdict"] == "left", found[name]
        assert found[name]["reason"]
        assert found[name]["hint"]
        assert f"'{name}'" not in journey.names


@pytest.mark.parametrize("thing", PYTHON, ids=lambda thing: thing.id)
def test_a_thing_of_python_is_kept_or_named(python: Journey, thing: Thing) -> None:
    check(python, thing)


@pytest.mark.parametrize("thing", SCIENCE, ids=lambda thing: thing.id)
def test_a_thing_of_the_science_libraries_is_kept_or_named(science: Journey, thing: Thing) -> None:
    check(science, thing)


@pytest.mark.parametrize("table", ["python", "science"])
def test_nothing_is_left_but_what_the_table_says(table: str, request: pytest.FixtureRequest) -> None:
    journey: Journey = request.getfixturevalue(table)
    expected = {name for thing in (PYTHON if table == "python" else SCIENCE) for name in thing.left}
    found = {one["name"] for one in journey.saved["verdicts"] if one["verdict"] == "left"}
    assert found - {name for name in found if name.startswith("Out[")} == expected
    loaded = {name for name, one in journey.loaded.items() if one["verdict"] == "left"}
    assert loaded == found


@pytest.mark.parametrize("table", ["python", "science"])
def test_every_variable_has_one_verdict_and_every_kept_one_bytes(
    table: str, request: pytest.FixtureRequest
) -> None:
    journey: Journey = request.getfixturevalue(table)
    names = [one["name"] for one in journey.saved["verdicts"]]
    assert len(names) == len(set(names))
    assert all(one["bytes"] > 0 for one in journey.saved["verdicts"] if one["verdict"] == "kept")
    assert all(value == "True" for value in journey.unchanged.values())
