"""What deep learning and other large libraries hold comes back as it was, or is named: nothing else."""

from __future__ import annotations

import pytest

from tests.frameworks.objects import FRAMES, JAX, TENSORFLOW, TORCH
from tests.unit.state.objects import Thing
from tests.unit.state.processes import verdicts
from tests.unit.state.test_objects import Journey, check

TABLES = {"torch": TORCH, "jax": JAX, "tensorflow": TENSORFLOW, "frames": FRAMES}
CASES = [pytest.param(table, thing, id=f"{table}-{thing.id}") for table in TABLES for thing in TABLES[table]]
pytestmark = pytest.mark.timeout(600)
_MADE: dict[str, Journey] = {}


@pytest.fixture
def journey(table: str, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    if table not in _MADE:
        _MADE[table] = Journey(tmp_path_factory.mktemp(table), TABLES[table])
    return _MADE[table]


@pytest.mark.parametrize(("table", "thing"), CASES)
def test_a_thing_of_a_framework_is_kept_or_named(journey: Journey, thing: Thing) -> None:
    check(journey, thing)


@pytest.mark.parametrize("table", TABLES)
def test_nothing_is_left_but_what_the_table_says(journey: Journey, table: str) -> None:
    expected = {name for thing in TABLES[table] for name in thing.left}
    found = {name for name, one in verdicts(journey.saved).items() if one["verdict"] == "left"}
    assert found == expected
    assert {name for name, one in journey.loaded.items() if one["verdict"] == "left"} == expected
