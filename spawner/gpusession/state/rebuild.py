"""What a saved stream calls while it is loaded.

These functions are named inside snapshots: they keep their names and arguments as long as the
format's version stays. Promises: none of them looks at anything but its arguments and the modules
of this process, and none runs code of the notebook that was not called for.
"""

from __future__ import annotations

import contextvars
import functools
import importlib
import logging
import sys
import types
import weakref
from collections.abc import Iterable
from typing import Any


def global_of(module: str, name: str) -> Any:
    """An object that a module holds under a name: a constant, a sentinel, the module's own instance."""
    return getattr(importlib.import_module(module), name)


def module_globals(name: str) -> dict[str, Any]:
    return importlib.import_module(name).__dict__


def module(name: str) -> types.ModuleType:
    return importlib.import_module(name)


def empty_module(name: str, doc: str | None) -> types.ModuleType:
    return types.ModuleType(name, doc)


def fill_module(made: types.ModuleType, state: dict[str, Any]) -> None:
    made.__dict__.clear()
    made.__dict__.update(state)


# --- functions


def cell() -> types.CellType:
    return types.CellType()


def fill_cell(made: types.CellType, value: tuple[Any, ...]) -> None:
    if value:
        made.cell_contents = value[0]


def function(
    code: types.CodeType, namespace: dict[str, Any], name: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    return types.FunctionType(code, namespace, name, None, closure)


def fill_function(made: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, slots = state
    for name, value in slots.items():
        setattr(made, name, value)
    made.__dict__.update(attributes)


def replace_attributes(made: Any, state: dict[str, Any]) -> None:
    held = object.__getattribute__(made, "__dict__")
    held.clear()
    held.update(state)


def cached_property(func: Any, name: str | None, doc: str | None) -> Any:
    made = functools.cached_property(func)
    made.attrname = name
    made.__doc__ = doc
    return made


# --- views and weak things


def dict_view(kind: str, of: Any) -> Any:
    return getattr(of, kind)()


def proxy_of(of: Any) -> Any:
    return types.MappingProxyType(of)


def memory(of: Any, form: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    view = memoryview(of)
    if view.format != form or view.shape != shape:
        view = view.cast("B").cast(form, shape)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


def weak_reference(kind: type, target: Any, callback: Any) -> Any:
    return kind(target) if callback is None else kind(target, callback)


def dead_reference(kind: type) -> Any:
    """A reference whose object was gone when it was saved."""

    class Gone:
        pass

    return kind(Gone())


def fill_weak_mapping(made: Any, items: Iterable[tuple[Any, Any]]) -> None:
    for key, value in items:
        made[key] = value


def fill_weak_set(made: Any, items: Iterable[Any]) -> None:
    for item in items:
        made.add(item)


def method_reference(method: types.MethodType) -> weakref.WeakMethod[Any]:
    return weakref.WeakMethod(method)


# --- objects whose usual pickle loses something


def instance(kind: type, attributes: dict[str, Any]) -> Any:
    """An object with its simple attributes set already, so that it can be hashed from the start."""
    made: Any = object.__new__(kind)
    if attributes:
        object.__getattribute__(made, "__dict__").update(attributes)
    return made


def fill_instance(made: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes is not None:
        replace_attributes(made, attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(made, name, value)


def exception(kind: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception without its ``__init__``, which may want other arguments."""
    made = kind.__new__(kind, *args)
    made.args = args
    return made


def fill_exception(made: BaseException, state: tuple[dict[str, Any], Any, Any, bool]) -> None:
    attributes, cause, context, suppress = state
    for name, value in attributes.items():
        setattr(made, name, value)
    made.__cause__, made.__context__ = cause, context
    made.__suppress_context__ = suppress


def match(pattern: Any, text: Any, pos: int, endpos: int, span: tuple[int, int], how: str) -> Any:
    """Match again, at the same place."""
    if how == "match":
        return pattern.match(text, pos, endpos)
    if how == "fullmatch":
        return pattern.fullmatch(text, pos, endpos)
    for found in pattern.finditer(text, pos, endpos):
        if found.span() == span:
            return found
    return None


def context_variable(name: str, default: tuple[Any, ...]) -> contextvars.ContextVar[Any]:
    return contextvars.ContextVar(name, default=default[0]) if default else contextvars.ContextVar(name)


def fill_context_variable(made: contextvars.ContextVar[Any], value: tuple[Any, ...]) -> None:
    if value:
        made.set(value[0])


def handler(kind: Any) -> Any:
    """A log handler with a lock of its own."""
    made = kind.__new__(kind)
    logging.Handler.__init__(made)
    return made


def fill_handler(made: logging.Handler, state: dict[str, Any]) -> None:
    lock = made.lock
    made.__dict__.update(state)
    made.lock = lock


def file_handler(kind: type, path: str, encoding: str | None, errors: str | None) -> Any:
    """A log file is opened again at its end: what was written stays."""
    return kind(path, mode="a", encoding=encoding, delay=True, errors=errors)


def stream(name: str) -> Any:
    return getattr(sys, name)
