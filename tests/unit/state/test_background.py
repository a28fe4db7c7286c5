"""Saving beside the kernel: what the copy saves is what was, and what happens to it is its own."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unit.state.processes import META, Shell


def begin(shell: Shell, folder: Path, **meta: Any) -> str:
    begun = shell.handle("automatic", folder=str(folder), meta={**META, "reason": "automatic", **meta})
    assert begun["forked"], begun
    return str(begun["snapshot"])


def outcome(shell: Shell, seconds: float = 60.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = shell.handle("background")
        if not found["running"]:
            return dict(found["outcome"])
        time.sleep(0.02)
    raise AssertionError("the copy never ended")


def copy_of(shell: Shell) -> psutil.Process:
    (child,) = psutil.Process(shell._process.pid).children()
    return child


HELD = (
    "import time\n"
    "class Slow:\n"
    "    def __getstate__(self):\n"
    "        time.sleep(1.5); return {'n': 1}\n"
    "slow = Slow()"
)


def test_the_copy_saves_what_was_while_the_next_cell_changes_it(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run("import numpy as np\nbig = np.zeros(5_000_000); small = [1]; alias = small", HELD)
    snapshot = begin(first, snapshots)
    first.run("big += 1; small.append(2); new = 3; del alias")
    assert first.handle("background")["running"]
    saved = outcome(first)
    assert saved["status"] == "ok"
    assert saved["bytes"] > 40_000_000
    second.load(snapshots / snapshot)
    assert second.value("big.sum(), small, alias is small, 'new' in globals()") == "0.0 [1] True False"
    assert json.loads((snapshots / snapshot / "manifest.json").read_text())["reason"] == "automatic"


def test_what_did_not_change_since_is_not_written_again(first: Shell, snapshots: Path) -> None:
    first.run("import numpy as np\na = np.ones(3_000_000); b = np.ones(3_000_000)")
    begin(first, snapshots)
    assert outcome(first)["written"] > 24_000_000
    first.run("b[7] = 5")
    begin(first, snapshots)
    again = outcome(first)
    assert again["bytes"] > 48_000_000
    assert again["written"] < 25_000_000
    assert first.save(snapshots)["written"] < 1_000_000


def test_a_save_by_hand_calls_the_copy_off_and_leaves_nothing_of_it(first: Shell, snapshots: Path) -> None:
    first.run(HELD)
    called_off = begin(first, snapshots)
    saved = first.save(snapshots)
    assert sorted(one.name for one in snapshots.iterdir()) == [saved["snapshot"]]
    assert outcome(first)["code"] == "conflict"
    assert called_off != saved["snapshot"]


def test_a_copy_that_is_killed_is_told_and_swept_away(first: Shell, snapshots: Path) -> None:
    first.run(HELD)
    (snapshots / f".{begin(first, snapshots)}.new").mkdir(parents=True)
    copy_of(first).kill()
    told = outcome(first)
    assert (told["status"], told["code"]) == ("error", "unavailable")
    assert list(snapshots.iterdir()) == []
    assert first.value("slow.__class__.__name__") == "Slow"


def test_an_interrupt_of_the_person_does_not_hit_the_copy(first: Shell, snapshots: Path) -> None:
    first.run(HELD)
    begin(first, snapshots)
    time.sleep(0.3)
    os.kill(copy_of(first).pid, signal.SIGINT)
    assert outcome(first)["status"] == "ok"


def test_short_of_memory_the_system_ends_the_copy_first(first: Shell, snapshots: Path) -> None:
    first.run(HELD)
    begin(first, snapshots)
    deadline = time.monotonic() + 10
    score = Path(f"/proc/{copy_of(first).pid}/oom_score_adj")
    while score.read_text().strip() != "1000" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert score.read_text().strip() == "1000"
    assert Path(f"/proc/{first._process.pid}/oom_score_adj").read_text().strip() != "1000"


def test_a_place_that_cannot_be_written_is_told_with_its_reason(first: Shell, work: Path) -> None:
    (work / "file").write_text("")
    first.run("x = 1")
    begin(first, work / "file" / "below")
    told = outcome(first)
    assert (told["status"], told["code"]) == ("error", "unavailable")
    assert "could not be written" in told["message"]


@pytest.mark.parametrize("wrong", [{"folder": 3, "meta": {}}, {"folder": "x"}, {"folder": "", "meta": {}}])
def test_an_order_that_makes_no_sense_is_refused(first: Shell, wrong: dict[str, Any]) -> None:
    assert first.handle("automatic", **wrong)["code"] == "bad-request"


def test_where_a_library_does_not_survive_a_fork_the_caller_saves_between_cells(
    first: Shell, snapshots: Path
) -> None:
    first.run("import sys, types\nsys.modules['jax'] = types.ModuleType('jax')")
    begun = first.handle("automatic", folder=str(snapshots), meta=META)
    assert begun == {"forked": False, "why": "jax is loaded"}
    assert not snapshots.exists()


def test_an_open_gpu_forbids_the_fork(first: Shell, snapshots: Path, work: Path) -> None:
    if not os.access("/dev", os.W_OK):
        pytest.skip("only root can put a file among the devices")
    device = Path("/dev/nvidia-gpuhub-test")
    device.write_text("")
    try:
        first.run(f"handle = open({str(device)!r})")
        begun = first.handle("automatic", folder=str(snapshots), meta=META)
        assert begun == {"forked": False, "why": "a GPU is in use"}
    finally:
        device.unlink()
