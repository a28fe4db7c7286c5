"""TensorFlow: variables and tensors through the host, functions by what they were made of.

What TensorFlow compiled is not carried: it is compiled again at the next call. A data set that has no state
of its own travels as TensorFlow's own description of it; one that shuffles or calls Python does not say how
far it is, and stays behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_tensorflow as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import Refused


class TensorflowCodec:
    library = "tensorflow"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import tensorflow as tf
        from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
        from tensorflow.python.ops.resource_variable_ops import ResourceVariable

        yield ResourceVariable, reduce_variable
        yield tf.lookup.StaticHashTable, reduce_table
        yield tf.lookup.experimental.MutableHashTable, reduce_table
        yield tf.distribute.Strategy, reduce_strategy
        yield Function, reduce_function
        yield tf.data.Dataset, reduce_dataset
        yield tf.data.Iterator, refuse_iterator
        yield tf.GradientTape, refuse_tape


codec = TensorflowCodec()


def reduce_variable(variable: Any, _pickler: StatePickler) -> Any:
    maker, args = variable.__reduce__()[:2]
    return rebuild.variable, (maker, args, variable._unique_id)


def reduce_table(table: Any, pickler: StatePickler) -> Any:
    keys, values = table.export()
    pickler.record.keep.append((keys, values))
    return rebuild.table, (type(table), keys, values, table._default_value)


def reduce_strategy(strategy: Any, _pickler: StatePickler) -> Any:
    from tensorflow.python.distribute.distribute_lib import _get_default_strategy

    if strategy is not _get_default_strategy():
        raise Refused("It ties computations to devices of this machine.")
    return rebuild.default_strategy, ()


def reduce_function(function: Any, pickler: StatePickler) -> Any:
    if getattr(function, "_created_variables", None):
        raise Refused("It made variables of its own, which only its compiled form knows.")
    pickler.anew("What TensorFlow compiled is compiled again at the next call.")
    made_with = {
        "input_signature": function.input_signature,
        "autograph": function._autograph,
        "jit_compile": function._jit_compile,
        "reduce_retracing": function._reduce_retracing,
        "experimental_autograph_options": function._experimental_autograph_options,
    }
    return rebuild.function, (function.python_function, made_with)


def reduce_dataset(dataset: Any, pickler: StatePickler) -> Any:
    import tensorflow as tf

    why = "A pipeline of tf.data that shuffles or calls Python has a state that TensorFlow does not show."
    policy = tf.data.experimental.ExternalStatePolicy.FAIL
    try:
        graph = dataset._as_serialized_graph(external_state_policy=policy).numpy()
    except (tf.errors.OpError, NotImplementedError) as error:
        raise Refused(why) from error
    if b"Shuffle" in graph or b"Random" in graph:
        raise Refused(why)
    pickler.anew("It is made anew from TensorFlow's description of it.")
    return rebuild.dataset, (graph, dataset.element_spec)


def refuse_iterator(_iterator: Any, _pickler: StatePickler) -> Any:
    raise Refused("It is halted in the middle of a data set.", "Start the loop over the data set again.")


def refuse_tape(_tape: Any, _pickler: StatePickler) -> Any:
    raise Refused("It recorded a computation inside TensorFlow.", "Run the cell that records it again.")
