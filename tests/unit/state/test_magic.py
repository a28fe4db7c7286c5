"""``%gpustate`` in a cell: list, save, restore, exclude, include, and every kind of rubbish."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.unit.state.processes import Shell, left, verdicts


def refused(shell: Shell, line: str) -> str:
    """Run a magic that is refused; return what stands under the cell."""
    answer = shell.ask(run=line)
    assert answer["error"] is None or answer["error"].startswith("UsageError"), answer
    assert "Traceback" not in answer["text"]
    return str(answer["text"] + (answer["error"] or ""))


def test_help_lists_every_word(first: Shell) -> None:
    text = first.run("%gpustate")
    assert text == first.run("%gpustate help")
    for word in ("list", "save", "restore", "exclude", "include"):
        assert f"%gpustate {word}" in text


def test_saving_and_restoring_from_a_cell(first: Shell, snapshots: Path) -> None:
    assert "Nothing of this notebook" in first.run("%gpustate list")
    first.run("x = [1]; y = x")
    assert first.run("%gpustate save").startswith("Saved as ")
    (folder,) = snapshots.iterdir()
    assert json.loads((folder / "manifest.json").read_text())["reason"] == "manual"
    listed = first.run("%gpustate list")
    assert folder.name[:8] in listed
    assert "manual" in listed
    first.run("x.append(2); del y; z = 3")
    assert "Restored 2 variables" in first.run("%gpustate restore")
    assert first.value("x, y is x, z") == "[1] True 3"


def test_some_variables_of_a_named_state(first: Shell, snapshots: Path) -> None:
    first.run("a = 1; b = 1")
    old = first.save(snapshots)["snapshot"]
    first.run("a = 2; b = 2")
    first.save(snapshots)
    first.run("a = b = 3")
    assert "Restored 1 variable of" in first.run("%gpustate restore b")
    assert first.value("a, b") == "3 2"
    first.run(f"%gpustate restore {old[:6]} a")
    assert first.value("a, b") == "1 2"


def test_what_restores_is_not_taken_for_what_made_a_variable(first: Shell, snapshots: Path) -> None:
    first.run("import sqlite3", "conn = sqlite3.connect(':memory:'); x = 1", "%gpustate save", "del x, conn")
    first.run("%gpustate restore")
    first.run("del x")
    planned = first.handle("plan", names=["x"])
    assert [one["number"] for one in planned["cells"]] == [2]


def test_an_excluded_variable_is_left_without_asking_and_stays_so_after_a_move(
    first: Shell, second: Shell, snapshots: Path
) -> None:
    first.run("import numpy as np\nbig = np.ones(3_000_000); alias = big; x = 1\nbig")
    assert first.run("%gpustate exclude big alias later") == "Not saved: alias, big, later.\n"
    saved = first.save(snapshots, accept="none")
    assert left(saved) == {"big": "You excluded it.", "alias": "You excluded it."}
    assert verdicts(saved)["big"]["excluded"]
    assert saved["bytes"] < 1_000_000, "it must not come along as Out[1]"
    assert left(first.handle("check")).keys() == {"big", "alias"}
    loaded = second.load(snapshots / saved["snapshot"])
    assert loaded["big"]["verdict"] == "left"
    assert second.value("x, 'big' in globals()") == "1 False"
    second.run("later = 5")
    assert left(second.save(snapshots)) == {"later": "You excluded it."}
    assert second.run("%gpustate include later") == "Saved again: later.\n"
    assert left(second.save(snapshots)) == {}


def test_an_excluded_variable_that_cannot_be_saved_needs_no_consent(first: Shell, snapshots: Path) -> None:
    first.run("f = open('/dev/null')")
    assert first.handle("save", folder=str(snapshots), meta={}, accept="none")["code"] == "left-needs-consent"
    first.run("%gpustate exclude f")
    first.save(snapshots, accept="none")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("%gpustate dance", "There is no"),
        ("%gpustate list everything", "takes nothing more"),
        ("%gpustate save now", "takes nothing more"),
        ("%gpustate restore", "no saved state"),
        ("%gpustate restore nosuchid", "no saved state"),
        ("%gpustate exclude a.b", "no name of a variable"),
        ("%gpustate exclude __import__('os').abort()", "no name of a variable"),
        ("%gpustate include", "Which variable"),
        ("%gpustate include x", "is not excluded"),
    ],
)
def test_rubbish_is_answered_with_a_sentence(first: Shell, line: str, word: str) -> None:
    assert word in refused(first, line)


def test_names_and_states_that_are_not_there(first: Shell, snapshots: Path) -> None:
    first.run("x = 1", "%gpustate save")
    assert "no variable nope" in refused(first, "%gpustate restore nope")
    assert "no variable ../x" in refused(first, "%gpustate restore ../x")
    (folder,) = snapshots.iterdir()
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"x"', b'"y"'))
    assert "cannot be restored" in refused(first, f"%gpustate restore {folder.name}")
    assert "no saved state" in refused(first, "%gpustate restore")
    assert first.value("x") == "1"


def test_ids_that_begin_alike_are_not_guessed(first: Shell, snapshots: Path) -> None:
    first.run("x = 1")
    saved = first.save(snapshots)["snapshot"]
    for twin in ("aaaa1", "aaaa2"):
        os.rename(snapshots / saved, snapshots / twin) if twin == "aaaa1" else (snapshots / twin).mkdir()
    assert "2 saved states begin with aaaa" in refused(first, "%gpustate restore aaaa")
    # A state that lies under another name than its own is not trusted.
    assert "cannot be restored" in refused(first, "%gpustate restore aaaa1")
