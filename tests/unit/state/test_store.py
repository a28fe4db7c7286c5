"""What is in the folder of snapshots, whatever somebody put there."""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from gpulease import errors
from gpusession.state.manifest import NAME, dump, parse, seal
from gpusession.state.store import SnapshotStore
from tests.unit.state.inprocess import START, Bare, agent, save


def saved(folder: Path, number: int, notebook: str = "a.ipynb", **variables: object) -> str:
    kernel = agent(Bare(**{"x": number, **variables}))
    kernel._make_id = lambda: f"{notebook[0]}{number}"
    kernel._now = lambda: START + timedelta(hours=number)
    return str(save(kernel, folder, notebook=notebook)["snapshot"])


def test_the_newest_comes_first_with_what_the_save_said(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        saved(tmp_path, number, gen=sys._getframe())
    first = SnapshotStore(tmp_path).list()[0]
    assert [one.id for one in SnapshotStore(tmp_path).list()] == ["a3", "a2", "a1"]
    assert (first.notebook, first.kernel, first.reason) == ("a.ipynb", "k1", "move")
    assert (first.complete, first.problem, first.kept, first.left) == (True, None, 1, 1)
    assert {one.name: one.verdict for one in first.verdicts} == {"x": "kept", "gen": "left"}
    assert first.created_at == START + timedelta(hours=3)
    assert first.bytes == sum(path.stat().st_size for path in (tmp_path / "a3").iterdir())


def test_no_folder_is_no_snapshots(tmp_path: Path) -> None:
    assert SnapshotStore(tmp_path / "none").list() == []
    assert SnapshotStore(tmp_path / "none").prune() == []


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "deep": b"[" * 200_000,
    "deep-object": b'{"a":' * 100_000,
    "list": b"[1, 2]",
    "null": b"null",
    "nan": b'{"bytes": NaN, "format": 1}',
    "wrong-types": b'{"format": "x", "components": 3, "files": [], "id": {}, "digest": 4}',
    "huge-number": b'{"format": 1' + b"0" * 5000 + b"}",
    "not-utf8": b"\xff\xfe\x00",
    "pickle": b"\x80\x05cos\nsystem\n\x8c\x02id\x85R.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_list_of_contents_is_a_damaged_snapshot(tmp_path: Path, name: str) -> None:
    saved(tmp_path, 1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / NAME).write_bytes(HOSTILE[name])
    infos = {one.id: one for one in SnapshotStore(tmp_path).list()}
    assert infos["a1"].complete
    assert not infos["bad"].complete
    assert infos["bad"].problem


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", {"../../etc/passwd": 3}),
        ("files", {"small.bin": -1}),
        ("files", {"small.bin": True}),
        ("components", [{"file": "small.bin"}]),
        ("components", [3]),
        ("verdicts", [3]),
        ("verdicts", [{"name": 3}]),
        ("reason", "whim"),
        ("created_at", "yesterday"),
        ("notebook", 3),
        ("id", "other"),
        ("bytes", "many"),
        ("libraries", []),
        ("surprise", 1),
    ],
)
def test_wrong_values_with_a_right_digest_are_a_damaged_snapshot(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / saved(tmp_path, 1) / NAME
    manifest = parse(path.read_bytes())
    body = json.loads(path.read_bytes())
    body.pop("digest")
    if hasattr(manifest, key) and key not in ("components",):
        setattr(manifest, key, value)
        path.write_bytes(dump(manifest))
    else:
        path.write_bytes(seal({**body, key: value}))
    assert not SnapshotStore(tmp_path).list()[0].complete


def test_links_pipes_and_large_files_are_not_followed_or_read(tmp_path: Path) -> None:
    real = saved(tmp_path / "elsewhere", 1)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere" / real)
    for name in ("link", "pipe", "huge"):
        (folder / name).mkdir()
    (folder / "link" / NAME).symlink_to(tmp_path / "elsewhere" / real / NAME)
    os.mkfifo(folder / "pipe" / NAME)
    with (folder / "huge" / NAME).open("wb") as file:
        file.truncate(1 << 40)
    shutil.copytree(tmp_path / "elsewhere" / real, folder / real)
    (folder / real / "small.bin").unlink()
    (folder / real / "small.bin").symlink_to("/dev/zero")
    found = {one.id: one for one in SnapshotStore(folder).list()}
    assert set(found) == {"link", "pipe", "huge", real}
    assert not any(one.complete for one in found.values())


def test_files_and_hidden_folders_are_no_snapshots(tmp_path: Path) -> None:
    (tmp_path / ".settled.json").write_text("[]")
    (tmp_path / ".x.new").mkdir()
    (tmp_path / "note.txt").write_text("")
    assert SnapshotStore(tmp_path).list() == []


def test_delete_removes_one_and_only_one(tmp_path: Path) -> None:
    one, two = saved(tmp_path, 1), saved(tmp_path, 2)
    store = SnapshotStore(tmp_path)
    store.delete(one)
    assert [info.id for info in store.list()] == [two]
    assert [path.name for path in tmp_path.iterdir()] == [two]
    for wrong in (one, "../x", ".", "", "/etc"):
        with pytest.raises(errors.NotFound):
            store.delete(wrong)


def test_a_link_is_not_deleted_through(tmp_path: Path) -> None:
    real = saved(tmp_path / "elsewhere", 1)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / real)
    with pytest.raises(errors.NotFound):
        SnapshotStore(tmp_path).delete("link")
    assert (tmp_path / "elsewhere" / real / NAME).exists()


def test_the_oldest_of_a_notebook_go_first(tmp_path: Path) -> None:
    for number in range(1, 8):
        saved(tmp_path, number)
    saved(tmp_path, 1, "b.ipynb")
    assert sorted(SnapshotStore(tmp_path, keep_per_notebook=3).prune()) == ["a1", "a2", "a3", "a4"]
    assert [one.id for one in SnapshotStore(tmp_path).list()] == ["a7", "a6", "a5", "b1"]


def test_over_the_limit_the_oldest_go_but_never_the_newest_of_a_notebook(tmp_path: Path) -> None:
    saved(tmp_path, 1, "b.ipynb", big=bytes(500_000))
    for number in range(2, 6):
        saved(tmp_path, number, big=bytes(100_000))
    assert set(SnapshotStore(tmp_path, keep_bytes=780_000).prune()) == {"a2", "a3"}
    assert set(SnapshotStore(tmp_path, keep_bytes=0).prune()) == {"a4"}
    assert {one.id for one in SnapshotStore(tmp_path).list()} == {"a5", "b1"}


def test_a_damaged_newest_does_not_make_the_last_whole_one_go(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    newest = tmp_path / saved(tmp_path, 2)
    (newest / "small.bin").write_bytes(b"")
    assert SnapshotStore(tmp_path, keep_per_notebook=1, keep_bytes=0).prune() == []
    assert {one.id: one.complete for one in SnapshotStore(tmp_path).list()} == {"a1": True, "a2": False}


def test_what_a_dead_save_left_goes_after_a_day(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for name, age_hours in ((".old.new", 30), (".young.new", 3), (".mine", 300)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c0.bin").write_bytes(b"x")
        then = START.timestamp() - age_hours * 3600
        os.utime(tmp_path / name, (then, then))
    SnapshotStore(tmp_path, now=lambda: START).prune()
    assert {path.name for path in tmp_path.iterdir()} == {"a1", ".young.new", ".mine"}
