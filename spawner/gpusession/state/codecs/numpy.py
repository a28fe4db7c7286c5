"""NumPy arrays: one write per piece of memory, and views that go on sharing it.

Pickle copies every view apart. Here an array that owns its memory is written once, straight from that
memory, and is read straight into the array that the notebook gets (which owns its memory again); a
view is written as (base, offset, shape, strides). A small view of something large that nothing else
looks into is written alone, in its own memory order: sums over it give the same last bit.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from typing import Any, cast

from gpusession.state.codecs import rebuild_numpy as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import Refused

ALONE_FACTOR = 8
"""A lone view is written without its base once the base is this many times larger."""
ALONE_BYTES = 1 << 20
_RAW_KINDS = "biufcmMSUV?"


class NumpyCodec:
    library = "numpy"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        import numpy as np

        yield np.ndarray, reduce_array
        yield np.memmap, refuse_map
        yield np.ufunc, reduce_ufunc
        yield np.dtype, reduce_dtype
        yield type(iter(np.zeros(1).flat)), reduce_flat


codec = NumpyCodec()


def reduce_dtype(dtype: Any, _pickler: StatePickler) -> Any:
    """NumPy's own dtypes are one object each."""
    import numpy as np

    if dtype.kind not in _RAW_KINDS and dtype.kind != "O":
        return NotImplemented
    return (np.dtype, (dtype.str,)) if np.dtype(dtype.str) is dtype else NotImplemented


def refuse_map(_array: Any, _pickler: StatePickler) -> Any:
    raise Refused("It is a map of a file, not data of its own.", "Run the cell that opens it again.")


def reduce_flat(flat: Any, _pickler: StatePickler) -> Any:
    if flat.index:
        raise Refused("It is halted in the middle of an array.")
    return rebuild.flat, (flat.base,)


def reduce_ufunc(ufunc: Any, _pickler: StatePickler) -> Any:
    import numpy as np

    name = str(ufunc.__name__)
    if getattr(np, name, None) is ufunc:
        return rebuild.ufunc, (name,)
    return NotImplemented


def reduce_array(array: Any, pickler: StatePickler) -> Any:
    import numpy as np

    kind = type(array)
    if isinstance(array.base, np.memmap) or _mapped(array):
        raise Refused("It looks into a map of a file.", "Run the cell that opens it again.")
    if kind is not np.ndarray and not _plain_subclass(kind):
        return NotImplemented
    if not _is_raw(array.dtype):
        return _reduce_objects(array, pickler)
    base = _base_of(array, pickler)
    if base is None and "torch" in sys.modules and array.size:
        address = array.__array_interface__["data"][0]
        pickler.weak["memory", address] = None
        pickler.record.memory.setdefault(address, array)
    made = _reduce_owner(array, pickler) if base is None else _reduce_view(array, base)
    state = _extras(array)
    locked = isinstance(base, np.ndarray) and not base.flags.writeable
    if state == (None, True) and not locked:
        return made
    return (*made, state, None, None, rebuild.fill_array)


def _plain_subclass(kind: Any) -> bool:
    import numpy as np

    plain: Any = np.ndarray
    if kind.__reduce__ is plain.__reduce__ and kind.__reduce_ex__ is plain.__reduce_ex__:
        return bool(kind.__setstate__ is plain.__setstate__)
    return kind is np.ma.MaskedArray or kind in (np.recarray,)


def _extras(array: Any) -> tuple[Any, bool]:
    attributes = getattr(array, "__dict__", None)
    return (dict(attributes) if attributes else None, bool(array.flags.writeable))


def _is_raw(dtype: Any) -> bool:
    import numpy as np

    return bool(
        not dtype.hasobject
        and dtype.kind in _RAW_KINDS
        and dtype.itemsize
        and type(dtype).__module__.startswith("numpy")
        and dtype.type is not getattr(np.dtypes, "StringDType", None)
    )


def _mapped(array: Any) -> bool:
    """Does the memory behind a chain of bases belong to a map of a file?"""
    import mmap

    import numpy as np

    base, seen = array.base, set[int]()
    while base is not None and id(base) not in seen:  # Cython's views name themselves as their base
        if isinstance(base, mmap.mmap | np.memmap):
            return True
        seen.add(id(base))
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return False


def _base_of(array: Any, pickler: StatePickler) -> Any:
    """Return the object whose memory this array looks into; None: write it alone."""
    import numpy as np

    base = array.base if array.size else None
    while base is not None and not isinstance(base, np.ndarray) and hasattr(base, "__array_interface__"):
        base = getattr(base, "base", None)  # what `as_strided` puts between
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, pickle.PickleBuffer):
        base = None
    if base is not None and type(base).__module__.startswith("torch"):
        from gpusession.state.codecs.torch import flat_of

        tensor: Any = base
        base = flat_of(tensor.untyped_storage(), pickler)
        return None if base is array else base
    if base is None or not isinstance(base, np.ndarray | bytearray | bytes):
        import array as arrays

        if not isinstance(base, arrays.array):
            return None
    while isinstance(base, np.ndarray) and isinstance(base.base, np.ndarray):
        base = base.base
    if isinstance(base, np.ndarray) and not (base.flags.c_contiguous or base.flags.f_contiguous):
        raise Refused("It looks into an array with an unusual order in memory.")
    size = base.nbytes if isinstance(base, np.ndarray) else memoryview(base).nbytes
    record = pickler.record
    record.looks(base, array)
    if size > max(ALONE_BYTES, ALONE_FACTOR * array.nbytes) and not record.shares(base):
        if not record.final:
            # Whether something else holds the base is known after everything was looked at once.
            pickler.again = True
            pickler.weak[id(base)] = base
        return None
    return base


def _reduce_owner(array: Any, pickler: StatePickler) -> Any:
    import numpy as np

    kind, array = type(array), array.view(np.ndarray)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy(order="K")
    order, strides, flat = "C", None, array
    if array.flags.c_contiguous or array.flags.f_contiguous:
        order = "C" if array.flags.c_contiguous else "F"
    else:  # axes in another order, but one dense piece
        strides = array.strides
        flat = array.transpose(np.argsort([-s for s in strides], kind="stable"))
    flat = flat.reshape(-1, order=order).view(np.uint8)
    pickler.record.keep.append(flat)
    shape = array.shape
    dtype = array.dtype
    simple = dtype.names is None and dtype.subdtype is None and not dtype.metadata
    if strides is None and simple and np.dtype(dtype.str) == dtype and kind is np.ndarray:
        buffer = pickler.array_buffer(flat, [dtype.str, list(shape), order])
        return rebuild.owner, (buffer, dtype, shape, order)
    buffer = pickle.PickleBuffer(flat)
    return rebuild.array, (kind, buffer, dtype, shape, strides, order)


def _reduce_view(array: Any, base: Any) -> Any:
    offset = array.__array_interface__["data"][0] - _address(base)
    return rebuild.view, (type(array), base, array.dtype, array.shape, offset, array.strides)


def _address(base: Any) -> int:
    import numpy as np

    if isinstance(base, np.ndarray):
        return int(np.lib.array_utils.byte_bounds(base)[0]) if base.size else 0
    if not memoryview(base).nbytes:
        return 0
    return int(np.frombuffer(base, np.uint8).__array_interface__["data"][0])


def _reduce_objects(array: Any, pickler: StatePickler) -> Any:
    """Arrays of Python objects, and of kinds with memory of their own."""
    import numpy as np

    base = array.base
    while isinstance(base, np.ndarray) and isinstance(base.base, np.ndarray):
        base = base.base
    if isinstance(base, np.ndarray) and array.dtype == base.dtype and array.dtype.itemsize:
        pickler.record.looks(base, array)
        item = array.dtype.itemsize
        offset = array.__array_interface__["data"][0] - int(np.lib.array_utils.byte_bounds(base)[0])
        plain = base.flags.c_contiguous or base.flags.f_contiguous
        if array.size and plain and offset % item == 0 and all(s % item == 0 for s in array.strides):
            where = np.arange(base.size).reshape(-1)
            index = np.lib.stride_tricks.as_strided(
                where[offset // item :], array.shape, [s // item * where.itemsize for s in array.strides]
            )
            args = (type(array), base, offset // item, array.shape, array.strides, bool(index.size))
            return rebuild.object_view, args, _extras(array), None, None, rebuild.fill_array
    if array.dtype == object and type(array) is np.ndarray:
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        items: Any = array.reshape(-1, order=cast(Any, order)).tolist() if array.ndim else [array.item()]
        pickler.record.keep.append(items)
        state = (items, bool(array.flags.writeable))
        return rebuild.objects, (array.shape, order), state, None, None, rebuild.fill_objects
    return NotImplemented
