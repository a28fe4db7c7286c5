"""Figures: carried as they are; pyplot's list of figures is carried beside them, with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.pickling import StatePickler


class MatplotlibCodec:
    library = "matplotlib.figure"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        from matplotlib.figure import Figure

        yield Figure, reduce_figure


codec = MatplotlibCodec()


def reduce_figure(figure: Any, _pickler: StatePickler) -> Any:
    """Without the wish to be shown again: pyplot's figures are put back under their own numbers."""
    made = figure.__reduce_ex__(5)
    if len(made) > 2 and isinstance(made[2], dict):
        made[2].pop("_restore_to_pylab", None)
    return made
