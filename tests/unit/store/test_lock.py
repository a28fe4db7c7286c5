"""One broker per database file: the lock that the system drops with its process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuhub.store.lock import LOOK_SECONDS, DatabaseLock

HOLDER = """
import asyncio, sys
from pathlib import Path
from gpuhub.store.lock import DatabaseLock

async def main():
    lock = DatabaseLock(Path(sys.argv[1]))
    await lock.acquire()
    print("held", flush=True)
    await lock.hold()

asyncio.run(main())
"""


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def held_by_another_process(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_database_file_has_a_lock_beside_it(tmp_path: Path) -> None:
    assert DatabaseLock.of(url(tmp_path / "broker.sqlite")) is not None
    assert not (tmp_path / "broker.sqlite.lock").exists(), "nothing is made before it is asked for"


@pytest.mark.parametrize(
    "address",
    ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "postgresql+psycopg://u:p@host/name"],
)
def test_what_is_no_file_has_none(address: str) -> None:
    assert DatabaseLock.of(address) is None


async def test_the_second_one_leads_only_when_the_first_one_lets_go(tmp_path: Path) -> None:
    one, two = (DatabaseLock(tmp_path / "x.lock") for _ in range(2))
    await one.acquire()
    assert one.leads()
    waiting = asyncio.ensure_future(two.acquire())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert not two.leads()
    await one.release()
    assert not one.leads()
    await asyncio.wait_for(waiting, LOOK_SECONDS + 5)
    assert two.leads()
    await two.release()


async def test_asked_twice_it_is_held_once(tmp_path: Path) -> None:
    one, two = (DatabaseLock(tmp_path / "x.lock") for _ in range(2))
    await one.acquire()
    await one.acquire()
    await one.release()
    await one.release()
    await asyncio.wait_for(two.acquire(), 1)


async def test_a_killed_process_leaves_the_lock_free_and_the_file_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = held_by_another_process(path)
    lock = DatabaseLock(path)
    waiting = asyncio.ensure_future(lock.acquire())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists()
    await asyncio.wait_for(waiting, LOOK_SECONDS + 5)
    assert lock.leads()


async def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    one, two = (DatabaseLock(tmp_path / "x.lock") for _ in range(2))
    await one.acquire()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    try:
        await one.release()
        await asyncio.wait_for(two.acquire(), 1)
    finally:
        child.kill()
        await child.wait()


async def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    (tmp_path / "x.lock").symlink_to(other)
    with pytest.raises(OSError, match=r"x\.lock"):
        await DatabaseLock(tmp_path / "x.lock").acquire()
    assert other.read_text() == "somebody's"


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await DatabaseLock(tmp_path / "nowhere/x.lock").acquire()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    lock = DatabaseLock(tmp_path / "x.lock")
    await lock.acquire()
    assert (tmp_path / "x.lock").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["x.lock"]
