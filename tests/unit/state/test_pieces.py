"""What did not change is not written again; what changed is never taken for unchanged."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulease import errors
from gpusession.state.agent import StateAgent
from gpusession.state.crew import Crew
from gpusession.state.digests import Digesting
from gpusession.state.disk import Disk
from gpusession.state.known import Known
from gpusession.state.manifest import NAME, parse
from gpusession.state.memory import Memory
from gpusession.state.pieces import PieceWriter
from gpusession.state.store import SnapshotStore
from tests.unit.state.inprocess import Bare, agent, as_main, load, save
from tests.unit.state.processes import Shell
from tests.unit.state.test_faults import Died, DiesAtStep, FillsUp

BESIDES_BYTES = 40_000
"""What a snapshot holds besides pieces, at most: manifest, environment, small values."""
LARGE = 400_000
"""Numbers in an array: 3.2 MB, four leaves, the last of them short."""


def arrays(**more: Any) -> Bare:
    return Bare(a=np.arange(float(LARGE)), b=np.arange(float(LARGE))[::-1].copy(), **more)


def files(snapshot: Path) -> dict[str, int]:
    """The pieces of a snapshot, by name, and which file each is."""
    return {path.name: path.stat().st_ino for path in snapshot.glob("p*.bin")}


def loaded(snapshot: Path) -> dict[str, Any]:
    fresh = Bare()
    with as_main(fresh):
        load(agent(fresh), snapshot)
    return fresh.user_ns


def test_an_unchanged_array_is_the_same_file_in_both_snapshots(tmp_path: Path) -> None:
    shell = arrays()
    kernel = agent(shell)
    first, second = save(kernel, tmp_path), save(kernel, tmp_path)
    assert files(tmp_path / first["snapshot"]) == files(tmp_path / second["snapshot"])
    assert len(files(tmp_path / "s2")) == 2
    assert first["written"] > 6_400_000
    assert second["written"] < BESIDES_BYTES
    assert second["bytes"] == first["bytes"]
    assert (loaded(tmp_path / "s2")["b"] == shell.user_ns["b"]).all()


@pytest.mark.parametrize("seed", range(60))
def test_a_single_bit_that_changed_is_saved(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    shell = arrays()
    kernel = agent(shell)
    save(kernel, tmp_path)
    memory = shell.user_ns["a"].view(np.uint8)
    memory[chance.choice([0, len(memory) - 1, chance.randrange(len(memory))])] ^= 1 << chance.randrange(8)
    second = save(kernel, tmp_path)
    assert second["written"] > LARGE * 8
    first, now = files(tmp_path / "s1"), files(tmp_path / "s2")
    assert [name for name in now if now[name] == first[name]] == ["p1.bin"]
    assert loaded(tmp_path / "s2")["a"].tobytes() == shell.user_ns["a"].tobytes()
    assert loaded(tmp_path / "s1")["a"].tobytes() == np.arange(float(LARGE)).tobytes()


def test_arrays_that_trade_places_keep_their_contents(tmp_path: Path) -> None:
    shell = arrays()
    kernel = agent(shell)
    save(kernel, tmp_path)
    space = shell.user_ns
    held = space["a"].copy()
    space["a"][:] = space["b"]
    space["b"][:] = held
    assert save(kernel, tmp_path)["written"] < BESIDES_BYTES
    found = loaded(tmp_path / "s2")
    assert (found["a"] == space["a"]).all()
    assert (found["b"] == np.arange(float(LARGE))).all()


def test_other_shapes_and_types_of_the_same_bytes_share_them(tmp_path: Path) -> None:
    shell = arrays()
    kernel = agent(shell)
    save(kernel, tmp_path)
    shell.user_ns["a"] = shell.user_ns["a"].view(np.int64).reshape(2, -1).copy()
    assert save(kernel, tmp_path)["written"] < BESIDES_BYTES
    assert loaded(tmp_path / "s2")["a"].shape == (2, LARGE // 2)
    assert loaded(tmp_path / "s2")["a"].dtype == np.int64


def test_a_long_stream_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    shell = Bare(rows=[{"n": n, "text": f"row {n}"} for n in range(100_000)])
    kernel = agent(shell)
    first, second = save(kernel, tmp_path), save(kernel, tmp_path)
    assert first["written"] > 1_000_000
    assert second["written"] < BESIDES_BYTES
    shell.user_ns["rows"][77_777]["n"] = -1
    assert save(kernel, tmp_path)["written"] > 1_000_000
    assert loaded(tmp_path / "s3")["rows"] == shell.user_ns["rows"]
    assert loaded(tmp_path / "s2")["rows"][77_777]["n"] == 77_777


def test_what_was_loaded_need_not_be_written_again(tmp_path: Path) -> None:
    save(agent(arrays()), tmp_path)
    shell = Bare()
    kernel = agent(shell)
    load(kernel, tmp_path / "s1")
    kernel._make_id = lambda: "next"
    shell.user_ns["a"][5] = -1
    assert LARGE * 8 < save(kernel, tmp_path)["written"] < LARGE * 8 + BESIDES_BYTES
    assert files(tmp_path / "next")["p1.bin"] == files(tmp_path / "s1")["p1.bin"]
    assert loaded(tmp_path / "next")["a"][5] == -1
    assert (loaded(tmp_path / "next")["b"] == shell.user_ns["b"]).all()


def test_a_file_that_somebody_touched_is_not_built_on(tmp_path: Path) -> None:
    kernel = agent(arrays())
    save(kernel, tmp_path)
    for path in (tmp_path / "s1").glob("p*.bin"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert save(kernel, tmp_path)["written"] > 2 * LARGE * 8
    assert (loaded(tmp_path / "s2")["a"] == np.arange(float(LARGE))).all()


def test_a_damage_that_left_no_trace_is_found_by_the_load_and_healed_by_the_next_save(tmp_path: Path) -> None:
    """A bad sector: the bytes change and the times do not. Two snapshots share them by then."""
    kernel = agent(arrays())
    save(kernel, tmp_path)
    path = tmp_path / "s1" / "p0.bin"
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[123_456] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert save(kernel, tmp_path)["written"] < BESIDES_BYTES
    with pytest.raises(errors.SnapshotUnusable, match="changed or damaged"):
        load(agent(Bare()), tmp_path / "s2")
    assert LARGE * 8 < save(kernel, tmp_path)["written"] < LARGE * 8 + BESIDES_BYTES
    assert (loaded(tmp_path / "s3")["a"] == np.arange(float(LARGE))).all()


@pytest.mark.parametrize("doomed", ["s1", "s2"])
def test_deleting_one_harms_no_other_that_shares_with_it(tmp_path: Path, doomed: str) -> None:
    shell = arrays()
    kernel = agent(shell)
    for _ in range(3):
        save(kernel, tmp_path)
    SnapshotStore(tmp_path).delete(doomed)
    for kept in {"s1", "s2", "s3"} - {doomed}:
        assert (loaded(tmp_path / kept)["b"] == shell.user_ns["b"]).all()
    save(kernel, tmp_path)
    shutil.rmtree(tmp_path / "s4")
    again = save(kernel, tmp_path)  # the snapshot that it knew is gone: everything is written
    assert again["written"] > 2 * LARGE * 8
    assert (loaded(tmp_path / "s5")["a"] == shell.user_ns["a"]).all()


def test_killed_at_any_step_of_a_second_save_both_the_first_and_what_it_shares_stay(tmp_path: Path) -> None:
    shell = arrays(x=[1])
    disk = DiesAtStep(10_000)
    kernel = agent(shell, disk)
    save(kernel, tmp_path)
    shell.user_ns["b"][7] = 0.5
    died = 0
    for step in range(100):
        disk.left, disk.dead = step, False
        kernel._make_id = lambda step=step: f"n{step}"  # type: ignore[misc]
        try:
            save(kernel, tmp_path)
            break
        except Died:
            died += 1
        assert loaded(tmp_path / "s1")["b"][7] != 0.5
        infos = {one.id: one.complete for one in SnapshotStore(tmp_path).list()}
        assert infos.pop("s1")
        if f"n{step}" in infos:
            assert loaded(tmp_path / f"n{step}")["b"][7] == 0.5
            shutil.rmtree(tmp_path / f"n{step}")
    assert died > 8
    assert files(tmp_path / f"n{died}")["p0.bin"] == files(tmp_path / "s1")["p0.bin"]
    assert loaded(tmp_path / f"n{died}")["b"][7] == 0.5


@pytest.mark.parametrize("room", [0, 1_000_000, 3_000_000])
def test_a_disk_that_is_full_at_the_second_save_harms_nothing(tmp_path: Path, room: int) -> None:
    shell = arrays()
    disk = FillsUp(10**9)
    kernel = agent(shell, disk)
    save(kernel, tmp_path)
    shell.user_ns["a"][7] = 0.5
    disk.room = room
    with pytest.raises(errors.StorageFull):
        save(kernel, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["s1"]
    assert loaded(tmp_path / "s1")["a"][7] == 7
    disk.room = 10**9
    assert save(kernel, tmp_path)["written"] < LARGE * 8 + BESIDES_BYTES
    assert loaded(tmp_path / "s3")["a"][7] == 0.5


class NoLinks(Disk):
    """A file system without hard links, or one that has no more of them."""

    def __init__(self, code: int) -> None:
        self.code = code

    def link(self, old: Path, new: Path) -> os.stat_result:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT])
def test_without_links_everything_is_written_again(tmp_path: Path, code: int) -> None:
    shell = arrays()
    kernel = agent(shell, NoLinks(code))
    first, second = save(kernel, tmp_path), save(kernel, tmp_path)
    assert second["written"] == first["written"]
    assert (loaded(tmp_path / "s2")["a"] == shell.user_ns["a"]).all()


class LinksAnother(Disk):
    """Between the look and the link, the file under this name became another one."""

    def link(self, old: Path, new: Path) -> os.stat_result:
        content = old.read_bytes()
        old.unlink()
        old.write_bytes(bytes(len(content)))
        return super().link(old, new)


def test_a_file_that_was_replaced_at_the_last_moment_is_not_taken(tmp_path: Path) -> None:
    shell = arrays()
    kernel = agent(shell, LinksAnother())
    save(kernel, tmp_path)
    save(kernel, tmp_path)
    assert (loaded(tmp_path / "s2")["a"] == shell.user_ns["a"]).all()


def test_savers_and_a_deleter_at_once_leave_only_whole_snapshots(tmp_path: Path) -> None:
    """Two notebooks save again and again while the store deletes whatever is old."""
    ends = threading.Event()
    failures: list[BaseException] = []
    store = SnapshotStore(tmp_path, keep_per_notebook=1)

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    def prune() -> None:
        while not ends.is_set():
            store.prune()

    numbers = count()
    kernels: list[tuple[Bare, StateAgent]] = []
    for book in "ab":
        shell = arrays()
        kernel = agent(shell)
        kernel._make_id = lambda book=book: f"{book}{next(numbers)}"  # type: ignore[misc]
        kernels.append((shell, kernel))

    def saving(book: str, shell: Bare, kernel: StateAgent) -> Callable[[], None]:
        def work() -> None:
            for turn in range(12):
                shell.user_ns["a"][turn] = -1.0
                save(kernel, tmp_path, notebook=book)

        return work

    deleter = threading.Thread(target=guarded(prune))
    savers = [
        threading.Thread(target=guarded(saving(book, *kernel)))
        for book, kernel in zip("ab", kernels, strict=True)
    ]
    for one in [deleter, *savers]:
        one.start()
    for one in savers:
        one.join()
    ends.set()
    deleter.join()
    assert failures == []
    store.prune()
    infos = store.list()
    assert sorted(str(one.notebook) for one in infos) == ["a", "b"]
    for one in infos:
        found = loaded(tmp_path / one.id)
        assert (found["a"][:12] == -1.0).all()
        assert (found["b"] == kernels[0][0].user_ns["b"]).all()


def test_memory_that_changes_while_it_is_written_is_saved_as_it_was_at_some_moment(tmp_path: Path) -> None:
    """A thread of the notebook goes on. Torn numbers are its own affair; an unreadable snapshot is not."""
    shell = arrays()
    ends = threading.Event()

    def scribble() -> None:
        n = 0.0
        while not ends.is_set():
            shell.user_ns["a"][:] = n
            n += 1

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        kernel = agent(shell)
        for _ in range(10):
            saved = save(kernel, tmp_path)
            assert (loaded(tmp_path / saved["snapshot"])["b"] == shell.user_ns["b"]).all()
    finally:
        ends.set()
        thread.join()


def test_what_is_shared_counts_once_and_goes_with_its_last_snapshot(tmp_path: Path) -> None:
    shell = arrays()
    kernel = agent(shell)
    for _ in range(3):
        save(kernel, tmp_path)
    shell.user_ns["a"][0] = shell.user_ns["b"][0] = 0.5
    save(kernel, tmp_path)
    store, mega = SnapshotStore(tmp_path), 1_000_000
    assert 12 * mega < store.total_bytes() < 13 * mega
    assert {one.bytes > 6 * mega for one in store.list()} == {True}
    assert SnapshotStore(tmp_path, keep_bytes=13 * mega).prune() == []
    # Less than all four take: the three old ones share their bytes, so all of them must go.
    assert set(SnapshotStore(tmp_path, keep_bytes=12 * mega).prune()) == {"s1", "s2", "s3"}
    assert [one.id for one in store.list()] == ["s4"]
    assert store.total_bytes() < 7 * mega


def test_a_snapshot_whose_going_frees_nothing_stays(tmp_path: Path) -> None:
    kernel = agent(Bare(big=bytes(2_000_000), x=1))
    save(kernel, tmp_path)
    save(kernel, tmp_path)
    other = agent(Bare(big=os.urandom(3_000_000)))
    other._make_id = lambda: "o1"
    save(other, tmp_path, notebook="o.ipynb")
    other._make_id = lambda: "o2"
    other._shell.user_ns["big"] = os.urandom(3_000_000)
    save(other, tmp_path, notebook="o.ipynb")
    # s1 is the oldest, and shares everything with s2, which stays: only o1 makes room.
    assert SnapshotStore(tmp_path, keep_bytes=5_100_000).prune() == ["o1"]


def test_the_manifest_names_pieces_by_digest_and_how_they_were_digested(tmp_path: Path) -> None:
    kernel = agent(arrays())
    save(kernel, tmp_path)
    manifest = parse((tmp_path / "s1" / NAME).read_bytes())
    for name, piece in manifest.pieces.items():
        way, content = piece.digesting, memoryview((tmp_path / "s1" / name).read_bytes())
        leaf = way.of_leaf()
        leaves = [leaf(content[at : at + way.leaf]) for at in range(0, len(content), way.leaf)]
        assert way.whole(len(content), leaves) == piece.digest
        assert (way.algorithm, len(leaves)) == ("xxh3-128", 4)
    assert {one.piece for part in manifest.components for one in part.buffers} == {"p0.bin", "p1.bin"}


def test_every_kernel_draws_a_seed_of_its_own(tmp_path: Path) -> None:
    seeds = set()
    for number in range(3):
        kernel = agent(arrays())
        kernel._make_id = lambda number=number: f"k{number}"  # type: ignore[misc]
        saved = save(kernel, tmp_path)["snapshot"]
        manifest = parse((tmp_path / saved / NAME).read_bytes())
        seeds |= {piece.seed for piece in manifest.pieces.values()}
    assert len(seeds) == 3


def test_without_xxhash_leaves_are_digested_by_sha256_and_such_a_snapshot_is_read_anywhere(
    tmp_path: Path,
) -> None:
    way = Digesting("sha256", 0)
    (tmp_path / "new").mkdir()
    content = os.urandom(2_500_000)
    with Crew() as crew:
        writer = PieceWriter(tmp_path / "new", Disk(), crew, Known(way))
        writer.add(Memory([content[:1_234_567], content[1_234_567:]]), lambda _: None)
        sizes, found = writer.finish()
    assert (tmp_path / "new" / "p0.bin").read_bytes() == content
    assert sizes == {"p0.bin": 2_500_000}
    assert found["p0.bin"].algorithm == "sha256"
    kernel = agent(arrays())
    kernel._known = Known(way)
    save(kernel, tmp_path)
    assert save(kernel, tmp_path)["written"] < BESIDES_BYTES
    assert (loaded(tmp_path / "s2")["a"] == np.arange(float(LARGE))).all()


def test_a_snapshot_whose_digests_need_a_library_that_is_missing_says_which(
    work: Path, snapshots: Path, tmp_path: Path
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "xxhash.py").write_text("raise ImportError('not here')")
    cells = ("import numpy as np", f"a = np.arange({LARGE}.0)")
    with Shell(work) as first, Shell(work, path=tmp_path / "without") as second:
        first.run(*cells)
        saved = first.save(snapshots)["snapshot"]
        refusal = second.handle("load", folder=str(snapshots / saved), names=None)
        assert (refusal["code"], "xxhash" in refusal["message"]) == ("snapshot-unusable", True)
        assert "Install xxhash" in refusal["hint"]
        second.run(*cells)
        saved = second.save(snapshots)["snapshot"]
        first.run("del a")
        first.load(snapshots / saved)
        assert first.value(f"(a == np.arange({LARGE}.0)).all()") == "True"


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 12_345])
def test_memory_in_several_pieces_reads_as_one(size: int) -> None:
    whole = os.urandom(size)
    cuts = sorted(random.Random(size).randrange(size) for _ in range(9))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    memory, room = Memory([*parts, b""]), memoryview(bytearray(1000))
    assert memory.nbytes == size
    for at in range(0, size, 1000):
        length = min(1000, size - at)
        assert bytes(memory.look(at, length, room)) == whole[at : at + length]
        assert bytes(memory.copy(at, length, room)) == whole[at : at + length]


def test_a_failure_in_one_thread_ends_the_work_of_all_and_comes_out() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 20:
            raise Died
        done.append(number)

    with Crew(3) as crew:
        with pytest.raises(Died):
            crew.share(1000, work)
        assert len(done) < 1000
        after = list(done)
        crew.share(5, done.append)
        assert sorted(done[len(after) :]) == [0, 1, 2, 3, 4]
