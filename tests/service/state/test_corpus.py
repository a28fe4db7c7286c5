"""Notebooks that are cut and go on elsewhere: right, or told; never wrong in silence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.corpus import FOLDER, cells_of, cut, play

NOTEBOOKS = sorted(FOLDER.glob("*.py"))
CUTS = 3
"""Drawn anew for each notebook, but the same at every run: neighbours are alike, and time is short."""

MAY_TELL = {
    "contexts_stacks",
    "files_folders",
    "files_open",
    "iterators_generators",
    "sql_store",
    "state_machines",
}
"""Notebooks that really need something that cannot be carried: there the person must be told."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_is_cut_goes_on_as_if_nothing_had_happened(path: Path, tmp_path: Path) -> None:
    cells = cells_of(path)
    expected = play(cells)
    places = random.Random(path.stem).sample(range(1, len(cells)), CUTS)
    cuts = [cut(path.stem, cells, expected, at, tmp_path) for at in sorted(places)]
    allowed = {"right", "told"} if path.stem in MAY_TELL else {"right"}
    assert [one for one in cuts if one.outcome not in allowed] == []
