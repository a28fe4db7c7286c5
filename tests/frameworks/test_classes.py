"""The same promise as `tests.unit.state.test_classes`, for the libraries of this lane."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.classes import FRAMEWORKS
from tests.unit.state.test_classes import Trip

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("library", sorted({kind.library for kind in FRAMEWORKS}))
def test_every_class_of_a_library_comes_back_whole_or_is_named(library: str, tmp_path: Path) -> None:
    kinds = [kind for kind in FRAMEWORKS if kind.library == library]
    trip = Trip(tmp_path, kinds)
    assert trip.wrong == {}
    assert trip.left.keys() == {kind.name for kind in kinds if kind.reason}, trip.left
    assert all(kind.reason in trip.left[kind.name] for kind in kinds if kind.reason)
