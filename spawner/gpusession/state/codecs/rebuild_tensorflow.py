"""What a saved stream calls to make TensorFlow's and Keras' objects again. Part of the format."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


def variable(maker: Any, args: tuple[Any, ...], unique: str) -> Any:
    """With the name by which optimisers know it; none that is made later may get the same."""
    from tensorflow.python.framework import ops

    made = maker(*args)
    made._unique_id = unique
    number = unique.rpartition("_")[2]
    while number.isdigit() and ops.uid() < min(int(number), 1_000_000):
        continue
    return made


def default_strategy() -> Any:
    from tensorflow.python.distribute.distribute_lib import _get_default_strategy

    return _get_default_strategy()


def function(python: Any, made_with: dict[str, Any]) -> Any:
    import tensorflow as tf

    return tf.function(python, **made_with)


def dataset(graph: bytes, spec: Any) -> Any:
    import tensorflow as tf
    from tensorflow.python.data.ops.dataset_ops import _VariantDataset

    return _VariantDataset(tf.raw_ops.DatasetFromGraph(graph_def=graph), spec)


def table(kind: Any, keys: Any, values: Any, default: Any) -> Any:
    """A lookup table with what it held."""
    import tensorflow as tf

    if not issubclass(kind, tf.lookup.experimental.MutableHashTable):
        return kind(tf.lookup.KeyValueTensorInitializer(keys, values), default)
    made = kind(keys.dtype, values.dtype, default)
    made.insert(keys, values)
    return made


# --- Keras


def bare(kind: Any) -> Any:
    return object.__new__(kind)


def fill_saveable(made: Any, state: dict[str, Any]) -> None:
    nodes = state.pop("_nodes", None)
    made.__dict__.update(state)
    if nodes is not None:
        from keras.src.ops.function import make_node_key

        made.__dict__["_nodes"] = {make_node_key(operation, number) for operation, number in nodes}


def tracked(kind: Any) -> Any:
    return kind.__new__(kind)


def fill_tracked(made: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Filled as what it extends: it would ask its tracker, which is not there yet."""
    items, attributes = state
    made.__dict__.update(attributes)
    if isinstance(made, OrderedDict):
        for key, held in items.items():
            OrderedDict.__setitem__(made, key, held)
    elif isinstance(made, list):
        list.extend(made, items)
    else:
        (dict if isinstance(made, dict) else set).update(made, items)


def fill_tracker(made: Any, state: dict[str, Any]) -> None:
    made.__dict__.update(state)
    made.stored_ids = {name: {id(one) for one in things} for name, things in made.stored_ids.items()}
