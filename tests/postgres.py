"""A real PostgreSQL for a test run: Debian's programs, a folder of its own, a Unix socket, no port.

PostgreSQL does not run as root, so there it runs as the account ``postgres`` that Debian's package made.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PROGRAMS = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs."""
    found = sorted(PROGRAMS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def database(self) -> str:
        """Make an empty database; return its address as the broker's settings have it."""
        self._count += 1
        name = f"broker{self._count}"
        with psycopg.connect(
            f"host={self._folder} user=gpuhub dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://gpuhub@/{name}?host={self._folder}"


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server, and end it with all it stored. Skips the test where there is none."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    account: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="gh-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        who = pwd.getpwnam("postgres")
        account = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
        os.chown(folder, who.pw_uid, who.pw_gid)
        folder.chmod(0o755)
    data = folder / "data"
    run: dict[str, Any] = {
        "cwd": folder,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        **account,
    }
    try:
        subprocess.run(
            [bin_folder / "initdb", "-D", data, "-U", "gpuhub", "-A", "trust", "-N", "-E", "UTF8"],
            check=True,
            timeout=120,
            **run,
        )
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [bin_folder / "pg_ctl", "-D", data, "-w", "-t", "60", "-l", folder / "log", "-o", options]
        subprocess.run([*control, "start"], check=True, timeout=90, **run)
        try:
            yield Postgres(folder)
        finally:
            subprocess.run(
                [bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, timeout=60, **run
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
