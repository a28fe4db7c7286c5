"""Two saved states side by side: what was added, removed, changed, and what cannot be told."""

from __future__ import annotations

import contextlib
import json
import os
import random
from pathlib import Path

import pytest

from gpulease.errors import GpuhubError, NotFound, SnapshotUnusable
from gpusession.state.comparison import differences
from gpusession.state.manifest import NAME, seal
from tests.unit.state.processes import Shell


def changes(first: Path, second: Path) -> dict[str, str]:
    return {one["name"]: one["change"] for one in differences(first, second)}


def saved(shell: Shell, folder: Path) -> Path:
    return folder / str(shell.save(folder, accept="all")["snapshot"])


CELL = """
import numpy as np, pandas as pd
small = {"a": [1, 2]}; text = "x" * 3_000_000; big = np.arange(1_000_000)
frame = pd.DataFrame({"n": range(100_000)}); f = open("/dev/null"); gone = 1
def function(): return small
"""


def test_each_kind_of_change_is_told(first: Shell, snapshots: Path) -> None:
    first.run(CELL)
    one = saved(first, snapshots)
    first.run("small['a'].append(3); big[5] = 0; del gone; new = 1; text = text[:-1] + 'y'")
    other = saved(first, snapshots)
    assert changes(one, other) == {
        "small": "changed",
        "text": "changed",
        "big": "changed",
        "frame": "same",
        "f": "unknown",
        "function": "same",
        "gone": "removed",
        "new": "added",
        "np": "same",
        "pd": "same",
    }
    assert set(changes(one, one).values()) == {"same", "unknown"}


def test_what_another_kernel_saved_again_is_still_the_same(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run(CELL)
    one = saved(first, snapshots)
    second.load(one)
    found = changes(one, saved(second, snapshots))
    assert (found["big"], found["frame"], found["small"], found["text"]) == ("same",) * 4


def test_what_became_of_another_type_is_changed(first: Shell, snapshots: Path) -> None:
    first.run("x = 1")
    one = saved(first, snapshots)
    first.run("x = '1'")
    assert changes(one, saved(first, snapshots))["x"] == "changed"


def test_one_that_is_gone_or_damaged_is_refused(first: Shell, snapshots: Path) -> None:
    first.run("x = 1")
    one, other = saved(first, snapshots), saved(first, snapshots)
    with pytest.raises(NotFound):
        differences(one, snapshots / "nope")
    (other / NAME).write_text('{"digest": "0", "format": 2}')
    with pytest.raises(SnapshotUnusable):
        differences(one, other)


def test_a_hostile_list_of_contents_reads_nothing_outside_its_folder(first: Shell, snapshots: Path) -> None:
    first.run("text = 'x' * 3_000_000")
    one, other = saved(first, snapshots), saved(first, snapshots)
    body = json.loads((other / NAME).read_bytes())
    del body["digest"]
    secret = snapshots / "secret"
    secret.write_bytes(b"x" * 3_000_000)
    for name in ("../secret", "/etc/passwd", "p0.bin/../../secret"):
        hostile = json.loads(json.dumps(body).replace('"p0.bin"', json.dumps(name)))
        (other / NAME).write_bytes(seal(hostile))
        with pytest.raises(SnapshotUnusable):
            differences(one, other)
    for piece in body["pieces"].values():
        piece["seed"] = "1"
    (other / NAME).write_bytes(seal(body))
    (other / "p0.bin").unlink()
    os.symlink(secret, other / "p0.bin")
    assert changes(one, other)["text"] in ("unknown", "changed")


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_of_a_list_of_contents_is_worse_than_a_refusal(
    first: Shell, snapshots: Path, seed: int
) -> None:
    first.run("x = [1, 2, 3]")
    one, other = saved(first, snapshots), saved(first, snapshots)
    draw = random.Random(seed)
    body = json.loads((other / NAME).read_bytes())
    body.pop("digest")
    key = draw.choice(sorted(body))
    rubbish = [None, -1, "x", [], {}, [[]], {"": None}, 1e308, True, [None, {"name": 3}], "\ud800"]
    body[key] = draw.choice(rubbish)
    (other / NAME).write_bytes(seal(body))
    with contextlib.suppress(GpuhubError):
        differences(one, other)
