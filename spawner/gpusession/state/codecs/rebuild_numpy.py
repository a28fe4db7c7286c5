"""What a saved stream calls to make arrays again. Names and arguments are part of the format."""

from __future__ import annotations

from typing import Any

import numpy as np


def owner(source: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    """``source``: the array itself, read straight from the disk, or the bytes of a small one."""
    if isinstance(source, memoryview) and isinstance(source.obj, np.ndarray):
        source = source.obj  # of an array that is read-only: its state says so
    if isinstance(source, np.ndarray):
        return source
    made: Any = np.empty(shape, dtype, "F" if order == "F" else "C")
    _memory(made)[...] = np.frombuffer(source, np.uint8)
    return made


def _memory(of: Any) -> Any:
    """The bytes of a contiguous array, in the order in which they lie."""
    return of.view(np.ndarray).reshape(-1, order="A").view(np.uint8)


def array(
    kind: type, source: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None, order: str
) -> Any:
    if strides is not None:
        return np.ndarray.__new__(kind, shape, dtype, np.array(np.frombuffer(source, np.uint8)), 0, strides)
    made: Any = np.ndarray.__new__(kind, shape, dtype, order="F" if order == "F" else "C")
    _memory(made)[...] = np.frombuffer(source, np.uint8)
    return made


def view(
    kind: type, base: Any, dtype: Any, shape: tuple[int, ...], offset: int, strides: tuple[int, ...]
) -> Any:
    memory = _memory(base) if isinstance(base, np.ndarray) and base.size else base
    return np.ndarray.__new__(kind, shape, dtype, memory, offset, strides)


def fill_array(made: Any, state: tuple[dict[str, Any] | None, bool]) -> None:
    attributes, writeable = state
    if attributes:
        made.__dict__.update(attributes)
    if made.flags.writeable != writeable:
        base = made.base
        locked = writeable and isinstance(base, np.ndarray) and not base.flags.writeable
        if locked:
            base.flags.writeable = True
        made.flags.writeable = writeable
        if locked:
            base.flags.writeable = False


def objects(shape: tuple[int, ...], order: str) -> Any:
    return np.empty(shape, object, "F" if order == "F" else "C")


def fill_objects(made: Any, state: tuple[list[Any], bool]) -> None:
    items, writeable = state
    if made.ndim == 0:
        made[()] = items[0]
    else:
        flat = made.reshape(-1, order="A")
        for n, item in enumerate(items):
            flat[n] = item
    made.flags.writeable = writeable


def object_view(
    kind: type, base: Any, start: int, shape: tuple[int, ...], strides: tuple[int, ...], _some: bool
) -> Any:
    flat = base.reshape(-1, order="A")[start:]
    return np.lib.stride_tricks.as_strided(flat, shape, strides).view(kind)


def flat(of: Any) -> Any:
    return of.flat


def ufunc(name: str) -> Any:
    return getattr(np, name)
