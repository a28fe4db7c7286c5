"""A fake server, and the ``gpu`` command run against it in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gpusession.shell.main import app
from tests.unit.shell.answering import AnswersAsTold


class Gpu:
    def __init__(self, server: AnswersAsTold) -> None:
        self.server = server

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(
            app, list(words), env={"GPUHUB_SOCKET": str(self.server.path), "TERM": "dumb"}
        )


@pytest.fixture
def server() -> Iterator[AnswersAsTold]:
    with tempfile.TemporaryDirectory(prefix="gs-") as folder, AnswersAsTold(Path(folder)) as answering:
        yield answering


@pytest.fixture
def gpu(server: AnswersAsTold) -> Gpu:
    return Gpu(server)
