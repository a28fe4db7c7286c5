"""How functions of the notebook are saved: by value, with the namespace that they really look into.

Promises: ``f.__globals__ is globals()`` after a restore as before; functions that share a cell of a
closure go on sharing it; a function made inside a library (a decorator's inner function) looks into
that library's module and not into a copy of it; tracebacks and `inspect.getsource` find the cell.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import cloudpickle.cloudpickle as cp

from gpusession.state import rebuild
from gpusession.state.pickling import StatePickler

_NOWHERE = "<dynamic-code>"
_SLOTS = (
    "__qualname__",
    "__module__",
    "__doc__",
    "__defaults__",
    "__kwdefaults__",
    "__annotations__",
    "__type_params__",
)


class ModuleGlobals:
    """Stands for the globals of a module that can be imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return rebuild.module_globals, (self.name,)


class HandmadeGlobals:
    """Stands for the globals of a module that was made in the notebook."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module

    def __reduce__(self) -> Any:
        return vars, (self.module,)


def reduce_function(func: Any, pickler: StatePickler) -> Any:
    if pickler.kinds.by_reference(func):
        return NotImplemented
    pickler.by_value = True
    state = (dict(func.__dict__), {name: getattr(func, name) for name in _SLOTS if hasattr(func, name)})
    args = (func.__code__, namespace_of(func.__globals__, pickler), func.__name__, func.__closure__)
    return rebuild.function, args, state, None, None, rebuild.fill_function


def namespace_of(namespace: dict[str, Any], pickler: StatePickler) -> Any:
    """Return what stands for a function's globals in a stream."""
    if namespace is pickler.anchored["namespace"]:
        return namespace
    name = namespace.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is not None and name != "__main__" and getattr(module, "__dict__", None) is namespace:
        made = ModuleGlobals(str(name))
        pickler.record.keep.append(made)
        return made
    handmade = pickler.record.handmade.get(id(namespace))
    if handmade is not None:
        return pickler.record.same.setdefault(id(namespace), HandmadeGlobals(handmade))
    return namespace


def reduce_code(code: Any, _pickler: StatePickler) -> Any:
    """Like cloudpickle's, with the file name: it leads to the cell's source."""
    make, args = cp._code_reduce(code)
    return make, tuple(code.co_filename if isinstance(one, str) and one == _NOWHERE else one for one in args)


def reduce_cell(cell: Any, _pickler: StatePickler) -> Any:
    try:
        held: tuple[Any, ...] = (cell.cell_contents,)
    except ValueError:
        held = ()
    return rebuild.cell, (), held, None, None, rebuild.fill_cell


def reduce_cached_property(prop: Any, _pickler: StatePickler) -> Any:
    return rebuild.cached_property, (prop.func, prop.attrname, prop.__doc__)


def reduce_module(module: Any, pickler: StatePickler) -> Any:
    name = module.__name__
    if sys.modules.get(name) is module:
        spec = getattr(module, "__spec__", None)
        if spec is not None or name in sys.builtin_module_names or getattr(module, "__file__", None):
            return rebuild.module, (name,)
    pickler.by_value = True
    state = {key: value for key, value in module.__dict__.items() if key != "__builtins__"}
    if "__builtins__" in module.__dict__:
        state["__builtins__"] = pickler.anchored["builtins"]
    return rebuild.empty_module, (name, module.__doc__), state, None, None, rebuild.fill_module


HANDLERS = (
    (types.FunctionType, reduce_function),
    (types.CodeType, reduce_code),
    (types.CellType, reduce_cell),
    (types.ModuleType, reduce_module),
)
