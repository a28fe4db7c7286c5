"""Two processes: what the first saves, the second loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.state.processes import Shell


@pytest.fixture
def snapshots(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def first(work: Path) -> Iterator[Shell]:
    with Shell(work) as shell:
        yield shell


@pytest.fixture
def second(work: Path) -> Iterator[Shell]:
    with Shell(work) as shell:
        yield shell
