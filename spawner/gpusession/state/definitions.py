"""Is a class of the notebook still defined as it was when it was saved?

Exists for loading a part: an object that comes back into a notebook whose cells have defined its class again
shall be of that class, not of a copy of it that ``isinstance`` does not know. Promises: two classes have the
same mark only if their code, their bases and the kinds of their attributes are the same; values that change
while a notebook runs (counters, registries) do not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import types
from collections.abc import Container, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

_NOT_DEFINED = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "__annotations__",
    "__abstractmethods__",
    "__slotnames__",
    "__firstlineno__",
    "_abc_impl",
}
"""What differs, or comes later, although the definition is the same."""


def mark_of(kind: Any) -> str:
    """Return what tells a definition from others."""
    bases = [
        mark_of(one) if one.__module__ == "__main__" else (one.__module__, one.__qualname__)
        for one in kind.__bases__
    ]
    told: list[Any] = [kind.__qualname__, type(kind).__qualname__, bases]
    told += [
        (name, _told(value)) for name, value in sorted(kind.__dict__.items()) if name not in _NOT_DEFINED
    ]
    return hashlib.sha256(repr(told).encode(errors="surrogatepass")).hexdigest()


def _told(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return type(value).__name__, _told(value.__func__)
    if isinstance(value, property):
        return "property", [_told(one) for one in (value.fget, value.fset, value.fdel)]
    if isinstance(value, types.FunctionType):
        return _told(value.__code__), _told(getattr(value, "__wrapped__", None))
    if isinstance(value, types.CodeType):
        constants = [_told(one) if isinstance(one, types.CodeType) else repr(one) for one in value.co_consts]
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_flags, value.co_argcount)
        return value.co_code.hex(), names, constants
    return type(value).__qualname__


class Standing:
    """The classes that a notebook has while a part is loaded into it."""

    def __init__(self, space: Mapping[str, Any], wanted: Container[str]) -> None:
        self._space, self._wanted = space, wanted
        self._reused: set[int] = set()
        self.apart: set[str] = set()
        """Names of classes that are defined otherwise now: their objects are of the saved class."""

    def instead_of(self, name: str, mark: str) -> Any:
        """Return the class that stands for a saved one; None: there is none."""
        known = None if name in self._wanted else self._space.get(name)
        if not isinstance(known, type) or known.__module__ != "__main__":
            return None
        if mark_of(known) != mark:
            self.apart.add(name)
            return None
        self._reused.add(id(known))
        return known

    def is_reused(self, kind: Any) -> bool:
        return id(kind) in self._reused


_STANDING: ContextVar[Standing | None] = ContextVar("standing", default=None)


def standing() -> Standing | None:
    return _STANDING.get()


@contextlib.contextmanager
def stand(classes: Standing) -> Iterator[None]:
    token = _STANDING.set(classes)
    try:
        yield
    finally:
        _STANDING.reset(token)
