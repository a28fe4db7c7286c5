"""What a saved stream calls to make pandas objects again. Names and arguments are part of the format."""

from __future__ import annotations

from typing import Any


def sharers() -> Any:
    from pandas._libs.internals import BlockValuesRefs

    return BlockValuesRefs()


def block(kind: Any, values: Any, where: Any, ndim: int, refs: Any) -> Any:
    from pandas._libs.internals import BlockPlacement

    return kind(values, placement=BlockPlacement(where), ndim=ndim, refs=refs)
