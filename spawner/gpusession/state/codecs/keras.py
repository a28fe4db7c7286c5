"""Keras: models, layers, optimisers and metrics as the objects that they are made of.

Keras' own pickle writes a model to a file in memory and reads it again: a layer that is a variable of the
notebook, or part of two models, comes back twice, and a class of the notebook is not found. So they are
carried attribute by attribute. What was compiled is compiled again; what Keras remembers by an object's
address is remembered anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_tensorflow as rebuild
from gpusession.state.pickling import StatePickler

_COMPILED = ("train_function", "test_function", "predict_function")


class KerasCodec:
    library = "keras.src.saving.keras_saveable"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        from keras.src.saving.keras_saveable import KerasSaveable
        from keras.src.utils import tracking

        yield KerasSaveable, reduce_saveable
        yield tracking.Tracker, reduce_tracker
        for kind in (
            tracking.TrackedList,
            tracking.TrackedDict,
            tracking.TrackedOrderedDict,
            tracking.TrackedSet,
        ):
            yield kind, reduce_tracked


codec = KerasCodec()


def reduce_saveable(thing: Any, pickler: StatePickler) -> Any:
    state: dict[str, Any] = {
        name: None if name in _COMPILED else value for name, value in thing.__dict__.items()
    }
    if "_nodes" in state and "_nodes_by_depth" in state:
        reached = [node for nodes in state["_nodes_by_depth"].values() for node in nodes]
        state["_nodes"] = [(one.operation, one.operation._inbound_nodes.index(one)) for one in reached]
    pickler.record.keep.append(state)
    return rebuild.bare, (type(thing),), state, None, None, rebuild.fill_saveable


def reduce_tracker(tracker: Any, pickler: StatePickler) -> Any:
    stored = {
        name: [one for one in tracker.config[name][1] if id(one) in ids]
        for name, ids in tracker.stored_ids.items()
    }
    state = {**tracker.__dict__, "stored_ids": stored}
    pickler.record.keep.append(state)
    return rebuild.bare, (type(tracker),), state, None, None, rebuild.fill_tracker


def reduce_tracked(tracked: Any, pickler: StatePickler) -> Any:
    items = dict(tracked.items()) if isinstance(tracked, dict) else list(tracked)
    pickler.record.keep.append(items)
    state = (items, dict(tracked.__dict__))
    return rebuild.tracked, (type(tracked),), state, None, None, rebuild.fill_tracked
