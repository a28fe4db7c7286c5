"""What is different between two saved states, told from their lists of contents.

Nothing is unpickled: a variable is the same if the bytes of what it was saved with are. Where that
cannot be told (saved together with other variables than before, or too large to read for it) it says
so. Promises: whatever lies in the folders, the worst is a refusal; reads nothing outside of them.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpulease import errors
from gpusession.state.disk import read_small
from gpusession.state.manifest import MAX_BYTES, NAME, ComponentPart, Damaged, Manifest, parse

READ_BYTES = 256 << 20
"""Larger pieces are compared by their digests alone."""


def differences(first: Path, second: Path) -> list[dict[str, Any]]:
    """Return `gpulease.session.VariableChange` as plain data, by name. Raises NotFound, SnapshotUnusable."""
    one, other = _Side(first), _Side(second)
    names = dict.fromkeys([*one.verdicts, *other.verdicts])
    return [
        {
            "name": name,
            "change": _change(name, one, other),
            "before": one.verdicts.get(name),
            "after": other.verdicts.get(name),
        }
        for name in sorted(names)
    ]


class _Side:
    """One of the two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _manifest(folder)
        self.verdicts = {str(one.get("name")): one for one in self.manifest.verdicts}
        self.parts = {key: part for part in self.manifest.components for key in part.keys}


def _manifest(folder: Path) -> Manifest:
    try:
        return parse(read_small(folder / NAME, MAX_BYTES))
    except FileNotFoundError:
        raise errors.NotFound("This saved state is not there any more.") from None
    except (Damaged, OSError) as error:
        text = str(error) if isinstance(error, Damaged) else "It cannot be read."
        raise errors.SnapshotUnusable(f"This saved state cannot be compared. {text}") from error


def _change(name: str, one: _Side, other: _Side) -> str:
    if name not in one.verdicts:
        return "added"
    if name not in other.verdicts:
        return "removed"
    before, after = one.parts.get(f"var:{name}"), other.parts.get(f"var:{name}")
    if before is None or after is None:
        return "unknown" if before is after else "changed"
    if _type(one, name) != _type(other, name):
        return "changed"
    same = _same(one, before, other, after)
    if same is None or (not same and before.keys != after.keys):
        return "unknown"
    return "same" if same else "changed"


def _type(side: _Side, name: str) -> Any:
    return side.verdicts[name].get("type")


def _same(one: _Side, before: ComponentPart, other: _Side, after: ComponentPart) -> bool | None:
    """Are these components the same bytes? None: not known."""
    if (before.length, before.stream, before.nbytes) != (after.length, after.stream, after.nbytes):
        return False
    if bool(before.sha256) != bool(after.sha256) or before.sha256 != after.sha256:
        return False
    pieces = list(_pieces(before))
    if len(pieces) != len(list(_pieces(after))):
        return False
    found = [_same_piece(one, a, other, b) for a, b in zip(pieces, _pieces(after), strict=True)]
    if False in found:
        return False
    return None if None in found else True


def _pieces(part: ComponentPart) -> Iterator[str]:
    if not part.sha256:
        yield part.file
    for buffer in part.buffers:
        if buffer.piece is not None:
            yield buffer.piece


def _same_piece(one: _Side, before: str, other: _Side, after: str) -> bool | None:
    a, b = one.manifest.pieces.get(before), other.manifest.pieces.get(after)
    if a is not None and b is not None and a.digesting == b.digesting:
        return a.digest == b.digest
    path, second = one.folder / before, other.folder / after
    try:
        here, there = path.lstat(), second.lstat()
        if os.path.samestat(here, there):
            return True
        if here.st_size != there.st_size:
            return False
        if here.st_size > READ_BYTES or path.is_symlink() or second.is_symlink():
            return None
        return filecmp.cmp(path, second, shallow=False)
    except OSError:
        return None
