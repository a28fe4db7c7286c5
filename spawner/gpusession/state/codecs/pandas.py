"""pandas: frames and series that share memory go on doing so without one changing the other.

Since copy-on-write, pandas lets a column, a slice and a frame share memory and remembers who shares
it. Sharing memory without that memory would let a change of one reach the other in silence. So the
blocks are written with what they remember; an index gets memory of its own, since it remembers
its sharers elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_pandas as rebuild
from gpusession.state.pickling import StatePickler


class PandasCodec:
    library = "pandas"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import pandas as pd
        from pandas._libs import internals
        from pandas.core.internals.managers import SingleBlockManager

        yield pd.Index, reduce_index
        if hasattr(internals, "BlockValuesRefs"):
            yield internals.Block, reduce_block
            yield internals.BlockValuesRefs, reduce_sharers
            yield SingleBlockManager, reduce_single


codec = PandasCodec()


def reduce_block(block: Any, _pickler: StatePickler) -> Any:
    return rebuild.block, (type(block), block.values, block.mgr_locs.indexer, block.ndim, block.refs)


def reduce_single(manager: Any, _pickler: StatePickler) -> Any:
    """A series: pandas' own way makes its block anew, without what it remembers."""
    return type(manager), (manager._block, manager.axes[0])


def reduce_sharers(_refs: Any, _pickler: StatePickler) -> Any:
    return rebuild.sharers, ()


def reduce_index(index: Any, pickler: StatePickler) -> Any:
    import numpy as np

    made = index.__reduce__()
    if (
        len(made) < 2
        or not isinstance(made[1], tuple)
        or len(made[1]) != 2
        or not isinstance(made[1][1], dict)
    ):
        return made
    data = made[1][1].get("data")
    if isinstance(data, np.ndarray) and data.base is not None and not data.dtype.hasobject:
        data = data.copy()
        pickler.record.keep.append(data)
        made = (made[0], (made[1][0], {**made[1][1], "data": data}), *made[2:])
    return made
