"""A database that cannot be opened is one sentence, and its password is never in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuhub.store import Store
from tests.unit.spawner.played import free_port


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "postgresql+psycopg://u:s3cret@host:port/x",
        "mysql://u:s3cret@host/x",
        "nosuch+x://s3cret",
    ],
)
async def test_an_address_that_cannot_be_used_is_shown_what_one_looks_like(url: str) -> None:
    with pytest.raises(OSError, match=r"looks like sqlite\+aiosqlite") as refused:
        await Store.open(url)
    assert "s3cret" not in str(refused.value)


async def test_a_server_that_is_away_is_said_without_its_password() -> None:
    with pytest.raises(OSError, match="the database does not answer") as refused:
        await Store.open(f"postgresql+psycopg://u:s3cret@127.0.0.1:{free_port()}/x")
    assert "s3cret" not in str(refused.value)


async def test_a_file_without_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the folder of the database does not exist"):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path}/nowhere/x.sqlite")


async def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("a letter, and no database at all" * 100)
    with pytest.raises(Exception, match="not a database"):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path}/x.sqlite")
