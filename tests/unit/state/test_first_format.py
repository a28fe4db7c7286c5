"""Snapshots that an earlier gpuhub wrote are read like any other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulease import errors
from gpusession.state.manifest import ALIGN, NAME, parse
from gpusession.state.store import SnapshotStore
from tests.unit.state.inprocess import Bare, agent, as_main, load, save


def as_the_first_format(snapshot: Path) -> None:
    """Write a snapshot as version 1 did: bodies with all their buffers, one digest for each, no pieces."""
    manifest = parse((snapshot / NAME).read_bytes())
    content = {name: (snapshot / name).read_bytes() for name in manifest.files}
    files: dict[str, bytes] = {}
    components = []
    for number, part in enumerate(manifest.components):
        old = content[part.file][part.offset : part.offset + part.length]
        body, buffers = old[: part.stream], []
        for one in part.buffers:
            body += bytes(-len(body) % ALIGN)
            data = old[one.offset :][: one.nbytes] if one.piece is None else content[one.piece]
            buffers.append({**vars(one), "offset": len(body)})
            del buffers[-1]["piece"]
            body += data
        name = f"c{number}.bin" if len(body) >= 1 << 20 else "small.bin"
        start = len(files.get(name, b""))
        files[name] = files.get(name, b"") + body
        fields = {
            "file": name,
            "offset": start,
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        components.append({**vars(part), **fields, "buffers": buffers})
    for path in snapshot.iterdir():
        path.unlink()
    for name, data in files.items():
        (snapshot / name).write_bytes(data)
    sizes = {name: len(data) for name, data in files.items()}
    list_of_contents = {**vars(manifest), "components": components, "files": sizes, "format": 1}
    del list_of_contents["pieces"]
    digest = hashlib.sha256(_canonical(list_of_contents)).hexdigest()
    (snapshot / NAME).write_bytes(_canonical({**list_of_contents, "digest": digest}))


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    shared = [1, 2]
    shell = Bare(x=shared, y={"in": shared}, big=np.arange(300_000.0), small=np.arange(2000), text="gpu")
    folder = tmp_path / str(save(agent(shell), tmp_path)["snapshot"])
    as_the_first_format(folder)
    return folder


def test_it_is_listed_as_whole_and_loaded(earlier: Path) -> None:
    assert [*earlier.glob("c*.bin")]
    (info,) = SnapshotStore(earlier.parent).list()
    assert info.complete
    shell = Bare()
    with as_main(shell):
        found = load(agent(shell), earlier)
    assert {one["verdict"] for one in found["verdicts"]} == {"kept"}
    assert shell.user_ns["y"]["in"] is shell.user_ns["x"]
    assert (shell.user_ns["big"] == np.arange(300_000.0)).all()
    assert shell.user_ns["big"].flags.owndata
    assert (shell.user_ns["small"] == np.arange(2000)).all()


@pytest.mark.parametrize("name", ["c*.bin", "small.bin", NAME])
def test_a_flipped_bit_in_it_is_refused(earlier: Path, name: str) -> None:
    (path,) = earlier.glob(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.SnapshotUnusable):
        load(agent(Bare()), earlier)


def test_the_next_save_is_of_the_new_format_and_harms_it_not(earlier: Path) -> None:
    shell = Bare()
    kernel = agent(shell)
    load(kernel, earlier)
    kernel._make_id = lambda: "next"
    save(kernel, earlier.parent)
    assert parse((earlier.parent / "next" / NAME).read_bytes()).pieces
    assert {one.complete for one in SnapshotStore(earlier.parent).list()} == {True}
