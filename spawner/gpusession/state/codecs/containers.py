"""Classes of the notebook that extend Python's own values and containers, made without running their code.

Pickle makes a ``class Percent(float)`` again by calling its ``__new__`` with the finished value, fills a
``class Loud(dict)`` through its ``__setitem__``, and gives a ``class Bag(set)`` its members as the first
argument of its ``__init__``. What that code does was done already: it would divide once more, count once
more, or fail. So what they hold is put in by the class that they extend.
"""

from __future__ import annotations

import enum
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

from gpusession.state.classes import reduce_enum_member
from gpusession.state.codecs import rebuild_containers as rebuild
from gpusession.state.instances import OWN_WAY
from gpusession.state.pickling import StatePickler

VALUES = (int, float, complex, str, bytes, tuple, frozenset)
FILLED_BY = {
    list: ("__new__", "append", "extend"),
    dict: ("__new__", "__init__", "__setitem__", "update"),
    set: ("__new__", "__init__", "add", "update"),
    deque: ("__new__", "__init__", "append", "extend"),
}
"""Whose code pickle would run, by the class that is extended."""


class ContainersCodec:
    library = "builtins"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        yield from ((kind, reduce_value) for kind in VALUES)
        yield from ((kind, reduce_container) for kind in FILLED_BY)


codec = ContainersCodec()


def _defines(kind: Any, base: Any, names: tuple[str, ...]) -> bool:
    """Does a class between this one and the one that it extends define one of these?"""
    between = kind.__mro__[: kind.__mro__.index(base)]
    own = [one for one in between if one not in (OrderedDict, defaultdict)]
    return any(name in one.__dict__ for one in own for name in names)


def _value_of(kind: Any) -> Any:
    """Return what the class extends, if pickle would make its values wrongly."""
    base = next(one for one in kind.__mro__ if one in VALUES)
    if not isinstance(kind.__new__, types.FunctionType):
        return None
    own_way: tuple[str, ...] = OWN_WAY
    named = next((one for one in kind.__mro__ if one.__bases__ == (tuple,) and hasattr(one, "_fields")), None)
    if named is not None:
        if kind.__new__ is named.__new__:
            return None
        own_way = tuple(name for name in OWN_WAY if name != "__getnewargs__")
    return None if _defines(kind, base, own_way) else base


def _container_of(kind: Any) -> Any:
    """The same for containers."""
    base = next(one for one in kind.__mro__ if one in FILLED_BY)
    return None if _defines(kind, base, OWN_WAY) or not _defines(kind, base, FILLED_BY[base]) else base


def reduce_value(value: Any, pickler: StatePickler) -> Any:
    if isinstance(value, enum.Enum):
        return reduce_enum_member(value, pickler)
    kind = type(value)
    base = pickler.kinds.decided(_value_of, kind)
    if base is None:
        return NotImplemented
    plain = _plain_value(value, base)
    if base in (tuple, frozenset):
        pickler.record.keep.append(plain)
    return rebuild.value, (kind, base, plain), _state(value), None, None, rebuild.fill_value


def _plain_value(value: Any, base: Any) -> Any:
    """The same as the class that is extended has it, whatever the notebook's class says of itself."""
    if base in (tuple, frozenset):
        return base(base.__iter__(value))
    if base in (str, bytes):
        return base.__getitem__(value, slice(None))
    return {int: int.__int__, float: float.__float__, complex: complex.__complex__}[base](value)


def reduce_container(container: Any, pickler: StatePickler) -> Any:
    kind = type(container)
    base = pickler.kinds.decided(_container_of, kind)
    if base is None:
        return NotImplemented
    if base is dict:
        items: Any = dict(dict.items(container))
    else:
        items = [*base.__iter__(container)]
    more: dict[str, Any] = {"maxlen": container.maxlen} if base is deque else {}
    if isinstance(container, defaultdict):
        more["default_factory"] = container.default_factory
    pickler.record.keep.append(items)
    return (
        rebuild.container,
        (kind, more),
        (items, more, _state(container)),
        None,
        None,
        rebuild.fill_container,
    )


def _state(thing: Any) -> Any:
    return object.__getstate__(thing)
