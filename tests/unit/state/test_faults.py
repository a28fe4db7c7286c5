"""Whatever happens to the disk or to the process, no older snapshot is lost and no wrong value is loaded."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulease import errors
from gpusession.state.disk import Disk
from gpusession.state.manifest import NAME, dump, parse
from gpusession.state.store import SnapshotStore
from tests.unit.state.inprocess import Bare, agent, load, save


class Died(BaseException):
    """The process was killed."""


class DiesAtStep(Disk):
    """Killed at its n-th step on the disk: nothing happens after that, no cleaning up either."""

    def __init__(self, step: int) -> None:
        self.left, self.dead = step, False

    def _step(self) -> None:
        if self.left == 0 or self.dead:
            self.dead = True
            raise Died
        self.left -= 1

    def make_folder(self, folder: Path) -> None:
        self._step()
        super().make_folder(folder)

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, file: int, data: bytes | bytearray | memoryview) -> None:
        if self.left == 0 and not self.dead:
            super().write(file, memoryview(data)[: len(data) // 2])  # torn
        self._step()
        super().write(file, data)

    def write_at(self, file: int, data: memoryview, offset: int) -> None:
        if self.left == 0 and not self.dead:
            super().write_at(file, data[: len(data) // 2], offset)  # torn
        self._step()
        super().write_at(file, data, offset)

    def link(self, old: Path, new: Path) -> os.stat_result:
        self._step()
        return super().link(old, new)

    def sync(self, file: int) -> None:
        self._step()
        super().sync(file)

    def sync_folder(self, folder: Path) -> None:
        self._step()
        super().sync_folder(folder)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)

    def remove(self, folder: Path) -> None:
        if not self.dead:
            super().remove(folder)


class FillsUp(Disk):
    """A volume with room for so many bytes."""

    def __init__(self, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code = room, code

    def write(self, file: int, data: bytes | bytearray | memoryview) -> None:
        if len(data) > self.room:
            super().write(file, memoryview(data)[: self.room])
            raise OSError(self.code, os.strerror(self.code))
        self.room -= len(data)
        super().write(file, data)

    def write_at(self, file: int, data: memoryview, offset: int) -> None:
        if len(data) > self.room:
            super().write_at(file, data[: self.room], offset)
            raise OSError(self.code, os.strerror(self.code))
        self.room -= len(data)
        super().write_at(file, data, offset)


def variables() -> dict[str, Any]:
    shared = [1, 2]
    return {
        "x": shared,
        "y": shared,
        "text": "gpu" * 100,
        "array": np.arange(300_000.0),
        "table": {"a": np.arange(2000), "b": [shared]},
    }


def check_loaded(space: dict[str, Any]) -> None:
    assert space["x"] is space["y"]
    assert space["x"] == [1, 2]
    assert space["text"] == "gpu" * 100
    assert (space["array"] == np.arange(300_000.0)).all()
    assert (space["table"]["a"] == np.arange(2000)).all()
    assert space["table"]["b"][0] is space["x"]


def test_killed_at_any_step_of_a_save_the_older_snapshot_stays_and_no_half_one_is_offered(
    tmp_path: Path,
) -> None:
    shell = Bare(**variables())
    older = save(agent(shell), tmp_path)["snapshot"]
    shell.user_ns["x"].append(3)
    finished = died = 0
    for step in range(200):
        disk = DiesAtStep(step)
        kernel = agent(shell, disk)
        kernel._make_id = lambda step=step: f"n{step}"  # type: ignore[misc]
        try:
            save(kernel, tmp_path)
            finished += 1
        except Died:
            died += 1
        infos = {one.id: one for one in SnapshotStore(tmp_path).list()}
        assert infos[older].complete
        fresh = Bare()
        load(agent(fresh), tmp_path / older)
        check_loaded(fresh.user_ns)
        if f"n{step}" in infos:
            assert infos[f"n{step}"].complete
            fresh = Bare()
            load(agent(fresh), tmp_path / f"n{step}")
            assert fresh.user_ns["y"] == [1, 2, 3]
            shutil.rmtree(tmp_path / f"n{step}")
        if finished:
            break
    assert finished == 1
    assert died > 10


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("room", [0, 10, 3000, 1_000_000])
def test_a_full_disk_refuses_the_save_and_leaves_nothing_half_written(
    tmp_path: Path, room: int, code: int
) -> None:
    shell = Bare(**variables())
    older = save(agent(shell), tmp_path)["snapshot"]
    kernel = agent(shell, FillsUp(room, code))
    kernel._make_id = lambda: "new"
    with pytest.raises(errors.StorageFull):
        save(kernel, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [older]


def test_an_io_error_is_told_as_one_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable):
        save(agent(Bare(**variables()), FillsUp(1000, errno.EIO)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.Unavailable):
        save(agent(Bare(x=1)), tmp_path / "file")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return folder / str(save(agent(Bare(**variables())), folder)["snapshot"])


def files_of(snapshot: Path) -> list[Path]:
    return sorted(p for p in snapshot.iterdir() if p.is_file())


@pytest.mark.parametrize("seed", range(250))
def test_a_flipped_bit_anywhere_is_refused_and_nothing_is_touched(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    copy = shutil.copytree(whole, tmp_path / whole.name)
    path = chance.choice(files_of(copy))
    content = bytearray(path.read_bytes())
    where = chance.randrange(len(content))
    content[where] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    shell = Bare(x="mine", other=1)
    before = dict(shell.user_ns)
    with pytest.raises(errors.SnapshotUnusable) as refusal:
        load(agent(shell), copy)
    assert refusal.value.message
    assert refusal.value.hint
    assert shell.user_ns == before


@pytest.mark.parametrize("seed", range(40))
def test_a_truncated_or_missing_file_is_refused(whole: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    copy = shutil.copytree(whole, tmp_path / whole.name)
    path = chance.choice(files_of(copy))
    if seed % 5:
        path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    else:
        path.unlink()
    shell = Bare(x="mine")
    with pytest.raises(errors.SnapshotUnusable):
        load(agent(shell), copy)
    assert shell.user_ns["x"] == "mine"
    assert not SnapshotStore(tmp_path).list()[0].complete


def test_a_named_part_does_not_need_the_rest_to_be_whole(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / whole.name)
    large = max(files_of(copy), key=lambda path: path.stat().st_size)
    content = bytearray(large.read_bytes())
    content[-1] ^= 1
    large.write_bytes(content)
    shell = Bare()
    found = load(agent(shell), copy, ["x", "text"])
    assert [one["name"] for one in found["verdicts"]] == ["x", "text"]
    assert shell.user_ns["x"] == [1, 2]
    assert "y" not in shell.user_ns
    with pytest.raises(errors.SnapshotUnusable):
        load(agent(shell), copy, ["array"])


def test_another_python_is_refused_with_both_versions(whole: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whole, tmp_path / whole.name)
    manifest = parse((copy / NAME).read_bytes())
    manifest.python = "3.9.1"
    (copy / NAME).write_bytes(dump(manifest))
    with pytest.raises(errors.SnapshotUnusable, match=r"3\.9\.1.*3\.\d+") as refusal:
        load(agent(Bare()), copy)
    assert refusal.value.hint
    assert SnapshotStore(tmp_path).list()[0].complete  # elsewhere it can be used


def test_a_snapshot_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound):
        load(agent(Bare()), tmp_path / "nothing")


def test_an_unknown_name_is_not_found(whole: Path) -> None:
    with pytest.raises(errors.NotFound, match="no_such"):
        load(agent(Bare()), whole, ["x", "no_such"])


def test_snapshots_are_private(whole: Path) -> None:
    assert whole.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in whole.iterdir()} == {0o600}


def test_bytes_on_the_disk_are_what_was_said(whole: Path, tmp_path: Path) -> None:
    said = save(agent(Bare(**variables())), tmp_path)
    folder = tmp_path / said["snapshot"]
    assert sum(p.stat().st_size for p in files_of(folder) if p.name != NAME) == said["bytes"]
    assert said["bytes"] > 300_000 * 8
    by_name = {one["name"]: one["bytes"] for one in said["verdicts"]}
    assert by_name["array"] >= 300_000 * 8


@pytest.mark.parametrize(
    ("op", "content"),
    [
        ("fly", {}),
        ("save", {}),
        ("save", {"folder": "", "meta": {}}),
        ("save", {"folder": "/tmp/x", "meta": {}, "accept": "some"}),
        ("save", {"folder": "/tmp/x", "meta": 3, "accept": "all"}),
        ("load", {"folder": 3}),
        ("load", {"folder": "/tmp/x", "names": [1]}),
        ("prepare", {"modules": "os"}),
    ],
)
def test_a_request_that_cannot_be_understood_is_refused(op: str, content: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest):
        agent(Bare(x=1)).handle(op, content, lambda done, total: None)
