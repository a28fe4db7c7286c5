"""Figures: carried as they are; pyplot's list of figures is carried beside them, with its numbers.

Matplotlib's own pickle drops who listens to what: after it a colour bar no longer follows its image, and a
notebook's function on zooming is never called again. Listeners that are carried themselves stay connected.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_pictures as rebuild
from gpusession.state.codecs.stdlib import goes_along
from gpusession.state.pickling import StatePickler


class MatplotlibCodec:
    library = "matplotlib.figure"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        from matplotlib.cbook import CallbackRegistry
        from matplotlib.figure import Figure

        yield Figure, reduce_figure
        yield CallbackRegistry, reduce_registry


codec = MatplotlibCodec()


def reduce_figure(figure: Any, _pickler: StatePickler) -> Any:
    """Without the wish to be shown again: pyplot's figures are put back under their own numbers."""
    made = figure.__reduce_ex__(5)
    if len(made) > 2 and isinstance(made[2], dict):
        made[2].pop("_restore_to_pylab", None)
    return made


def reduce_registry(registry: Any, pickler: StatePickler) -> Any:
    state = registry.__getstate__()
    for signal, listeners in registry.callbacks.items():
        for number, proxy in listeners.items():
            listener = proxy()
            if number not in state["callbacks"].get(signal, {}) and _can_listen(listener, pickler):
                state["callbacks"].setdefault(signal, {})[number] = listener
    pickler.record.keep.append(state)
    return rebuild.registry, (type(registry),), state, None, None, rebuild.fill_registry


def _can_listen(listener: Any, pickler: StatePickler) -> bool:
    """It belongs to what is carried: not to the page or the window that shows the figure."""
    if isinstance(listener, types.MethodType):
        return goes_along(pickler, listener.__self__)
    return isinstance(listener, types.FunctionType) and listener.__module__ == "__main__"
