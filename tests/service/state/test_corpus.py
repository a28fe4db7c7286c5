"""Notebooks that are cut and go on elsewhere: right, or told; never wrong in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus import FOLDER, cells_of, cut, play

NOTEBOOKS = sorted(FOLDER.glob("*.py"))
STEP = 2
"""Every second cut is tried, another half for each notebook: time is short, and neighbours are alike."""

MAY_TELL = {"files_open", "iterators_generators", "sql_store", "threads_locks"}
"""Notebooks that really need something that cannot be carried: there the person must be told."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_is_cut_goes_on_as_if_nothing_had_happened(path: Path, tmp_path: Path) -> None:
    cells = cells_of(path)
    expected = play(cells)
    first = 1 + NOTEBOOKS.index(path) % STEP
    cuts = [cut(path.stem, cells, expected, at, tmp_path) for at in range(first, len(cells), STEP)]
    assert cuts
    allowed = {"right", "told"} if path.stem in MAY_TELL else {"right"}
    assert [one for one in cuts if one.outcome not in allowed] == []
