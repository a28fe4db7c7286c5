"""Objects of plain classes that pickle would make wrongly, and how they are made instead.

Pickle makes an object by its class's ``__new__`` without arguments, asks it for ``__setstate__`` while it is
still empty, and sets slots through ``__setattr__``. With code of the notebook in these places that fails,
or does once more what was done already: a ``__new__`` that wants arguments or returns the only instance, a
``__getattr__`` that hands on to another object and so calls itself for ever, a ``__setattr__`` that allows
nothing. And a set inside a cycle asks an object for its hash before its state is there. Such objects are
made by `object` itself, with their simple attributes set from the start.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from gpusession.state import rebuild

if TYPE_CHECKING:
    from gpusession.state.pickling import StatePickler

_SIMPLE = (type(None), bool, int, float, complex, str, bytes)
OWN_WAY = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
"""With one of these a class says itself how its objects are pickled."""


def need_care(kind: Any) -> bool:
    """Would pickle make objects of this class wrongly?"""
    classes = kind.__mro__[:-1]
    if any(name in one.__dict__ for one in classes for name in OWN_WAY):
        return False
    made_by = [one.__dict__["__new__"] for one in classes if "__new__" in one.__dict__]
    if not all(isinstance(one, staticmethod | types.FunctionType) for one in made_by):
        return False  # its memory has another form: only its own `__new__` can make it
    if isinstance(kind.__hash__, types.FunctionType):
        return True
    if any(_is_code(one, name) for one in classes for name in ("__getattr__", "__getattribute__")):
        return True
    mine = [one for one in classes if one.__module__ == "__main__"]
    slots = any(one.__dict__.get("__slots__") for one in classes)
    return any("__new__" in one.__dict__ or (slots and _is_code(one, "__setattr__")) for one in mine)


def _is_code(kind: Any, name: str) -> bool:
    return isinstance(kind.__dict__.get(name), types.FunctionType)


def reduce_instance(obj: Any, _pickler: StatePickler) -> Any:
    state: Any = object.__getstate__(obj)
    attributes = state[0] if isinstance(state, tuple) else state
    simple = {name: value for name, value in (attributes or {}).items() if _is_simple(value)}
    return rebuild.instance, (type(obj), simple), state, None, None, rebuild.fill_instance


def _is_simple(value: Any) -> bool:
    kind = type(value)
    return kind in _SIMPLE or (kind in (tuple, frozenset) and all(_is_simple(one) for one in value))
