"""One gpuhub for the tests of this folder that leave it as they found it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import RunningHub


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can pass through; pytest's own are this account's alone."""
    folder = Path(tempfile.mkdtemp(prefix="gpuhub-test-"))
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def hub(open_folder: Path) -> Iterator[RunningHub]:
    with RunningHub(open_folder / "hub", gpus="sim:2") as running:
        yield running
