"""How classes of the notebook are saved: by value, attribute by attribute, without running their hooks.

cloudpickle makes a class again by calling its metaclass with an empty body and fills it later. That
runs ``__init_subclass__`` (registries grow a second entry), forgets ``__slots__``, sorts the class
body, and loses an enum's aliases and the attributes of its members. Here the class is made by the
nearest metaclass that is not the notebook's own, the hooks are kept out of the way meanwhile, and
every attribute is set as it was.
"""

from __future__ import annotations

import abc
import enum
import types
import typing
from typing import Any

import cloudpickle.cloudpickle as cp

from gpusession.state import rebuild_classes
from gpusession.state.definitions import mark_of
from gpusession.state.pickling import StatePickler

_TYPED_DICT: Any = typing.TypedDict
PLAIN_METACLASSES = (type, abc.ABCMeta, enum.EnumType, type(_TYPED_DICT("_", {})))
_NOT_STATE = {
    "__dict__",
    "__weakref__",
    "_abc_impl",
    "__orig_bases__",
    "__slots__",
    "__classcell__",
    "__slotnames__",
}


def reduce_class(kind: Any, pickler: StatePickler) -> Any:
    if kind in cp._BUILTIN_TYPE_NAMES or kind in (type(None), type(Ellipsis), type(NotImplemented)):
        return cp._class_reduce(kind)
    if pickler.kinds.by_reference(kind):
        return NotImplemented
    pickler.by_value = True
    # What a trial loads is thrown away: an object that cleans up would clean up for real.
    pickler.must_not_try = pickler.must_not_try or hasattr(kind, "__del__")
    body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    slots = kind.__dict__.get("__slots__")
    names: set[str] = set()
    if slots is not None:
        body["__slots__"] = slots if isinstance(slots, str) else tuple(slots)
        names = {slots} if isinstance(slots, str) else set(slots)
        names |= {f"_{kind.__name__.lstrip('_')}{name}" for name in names if name.startswith("__")}
    if "__orig_bases__" in kind.__dict__:
        body["__orig_bases__"] = kind.__dict__["__orig_bases__"]
    registered = [ref() for ref in _registered(kind)] if isinstance(kind, abc.ABCMeta) else []
    state = {
        name: value
        for name, value in kind.__dict__.items()
        if name not in _NOT_STATE and not (name in names and isinstance(value, types.MemberDescriptorType))
    }
    maker = _maker(type(kind), pickler)
    args = (type(kind), maker, kind.__name__, kind.__bases__, body, mark_of(kind))
    full = (state, [one for one in registered if one is not None])
    return rebuild_classes.skeleton, args, full, None, None, rebuild_classes.fill_class


def _registered(kind: Any) -> Any:
    dump: Any = abc._get_dump  # type: ignore[attr-defined]
    return dump(kind)[0]


def _maker(metaclass: type, pickler: StatePickler) -> Any:
    """Return the nearest metaclass whose code is not the notebook's; None: let it make the class itself."""
    for base in metaclass.__mro__:
        if base in PLAIN_METACLASSES:
            return base
        if pickler.kinds.by_reference(base):
            return None
    return type


def reduce_enum_member(member: Any, pickler: StatePickler) -> Any:
    """A member of an enum of the notebook: as the object that it is, without asking its class."""
    kind = type(member)
    if pickler.kinds.by_reference(kind):
        return NotImplemented
    base = getattr(kind, "_member_type_", object)
    plain: tuple[Any, ...]
    if base is object:
        plain = ()
    elif base is str:
        plain = (str.__str__(member),)
    elif base is int:
        plain = (int.__int__(member),)
    elif base is float:
        plain = (float.__float__(member),)
    elif base in (tuple, bytes):
        plain = (base(member),)
    else:
        return NotImplemented
    return (
        rebuild_classes.enum_member,
        (kind, base, plain, member.__dict__.get("_name_")),
        dict(member.__dict__),
        None,
        None,
        rebuild_classes.fill_enum_member,
    )
