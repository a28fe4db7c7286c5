"""Python's own objects that pickle carries wrongly or not at all.

Live views (of dicts, of memory) that would come back as copies, weak references, exceptions whose
``__init__`` wants other arguments than they keep, matches, packers.
"""

from __future__ import annotations

import contextvars
import enum
import functools
import gc
import re
import struct
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from gpusession.state import rebuild
from gpusession.state.caches import reduce_lru_cache
from gpusession.state.classes import reduce_class, reduce_enum_member
from gpusession.state.functions import HANDLERS, reduce_cached_property
from gpusession.state.instances import reduce_instance
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import Refused


class StdlibCodec:
    library = "builtins"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        yield type, reduce_class
        yield from HANDLERS
        yield object, reduce_instance
        yield enum.Enum, reduce_enum_member
        yield functools._lru_cache_wrapper, reduce_lru_cache
        yield functools.cached_property, reduce_cached_property
        yield type(functools.cmp_to_key(lambda a, b: 0)), reduce_key
        sample: Any
        for kind in ("keys", "values", "items"):
            for sample in ({}, OrderedDict[Any, Any]()):
                yield type(getattr(sample, kind)()), functools.partial(reduce_dict_view, kind)
        yield types.MappingProxyType, reduce_proxy
        yield memoryview, reduce_memory
        yield weakref.ref, reduce_weak_reference
        yield weakref.WeakMethod, reduce_weak_method
        yield weakref.WeakValueDictionary, reduce_weak_values
        yield weakref.WeakKeyDictionary, reduce_weak_keys
        yield weakref.WeakSet, reduce_weak_set
        yield BaseException, reduce_exception
        yield re.Match, reduce_match
        yield struct.Struct, reduce_struct
        yield contextvars.ContextVar, reduce_context_variable
        # The C function of a class that wraps one in `object`'s place: pickled by name.
        yield types.BuiltinFunctionType, by_pickle
        yield types.MethodType, reduce_method


codec = StdlibCodec()


def by_pickle(_obj: Any, _pickler: StatePickler) -> Any:
    return NotImplemented


def reduce_method(method: Any, pickler: StatePickler) -> Any:
    del pickler
    return types.MethodType, (method.__func__, method.__self__)


def reduce_key(key: Any, _pickler: StatePickler) -> Any:
    """What `functools.cmp_to_key` returned: it does not show its function, but refers to it.

    What it makes of an object for one comparison refers to that, too.
    """
    compare = [one for one in gc.get_referents(key) if one is not type(key)]
    if len(compare) != 1:
        raise Refused("It is in the middle of a comparison.")
    return functools.cmp_to_key, (compare[0],)


def _behind(view: Any, wanted: Any) -> Any:
    """Return the mapping that a live view looks at."""
    found = [one for one in gc.get_referents(view) if isinstance(one, wanted)]
    if len(found) != 1:
        raise Refused("It looks into something that cannot be found.")
    return found[0]


def reduce_dict_view(kind: str, view: Any, _pickler: StatePickler) -> Any:
    return rebuild.dict_view, (kind, _behind(view, dict))


def reduce_proxy(proxy: Any, _pickler: StatePickler) -> Any:
    found = [one for one in gc.get_referents(proxy) if hasattr(one, "keys")]
    if len(found) != 1:
        raise Refused("It looks into something that cannot be found.")
    for value in list(found[0].values()) if isinstance(found[0], dict) else ():
        owner = getattr(value, "__objclass__", None)
        if isinstance(owner, type) and gc.get_referents(owner.__dict__)[0] is found[0]:
            return getattr, (owner, "__dict__")
    return rebuild.proxy_of, (found[0],)


def reduce_memory(view: memoryview, _pickler: StatePickler) -> Any:
    of = view.obj
    whole = memoryview(of).nbytes if of is not None else -1
    if not view.c_contiguous or whole != view.nbytes or view.ndim > 1:
        raise Refused("It looks into a part of another object's memory.")
    return rebuild.memory, (of, view.format, view.shape, view.readonly)


# --- weak things: carried where what they point to is carried
#
# Whether something saved holds a target is known only after every variable was looked at once. In that
# first look weak things are empty; in the final pass they hold what was reached.


def goes_along(pickler: StatePickler, target: Any) -> bool:
    """Is this weakly held object carried? In the first look the answer is no, and it is asked again."""
    if isinstance(target, type | types.FunctionType) and pickler.kinds.by_reference(target):
        return True
    if pickler.record.final:
        return pickler.record.is_reached(target)
    pickler.again = True
    pickler.weak[id(target)] = target
    return False


def _those_along(pickler: StatePickler, items: list[Any], target: Callable[[Any], Any]) -> list[Any]:
    along = [item for item in items if goes_along(pickler, target(item))]
    if pickler.record.final and len(along) < len(items):
        pickler.note("Weak entries whose objects are not saved are gone.")
    return along


def reduce_weak_reference(ref: Any, pickler: StatePickler) -> Any:
    target = ref()
    if target is None:
        return rebuild.dead_reference, (type(ref),)
    if goes_along(pickler, target):
        return rebuild.weak_reference, (type(ref), target, getattr(ref, "__callback__", None))
    _must_be_first_look(pickler)
    return rebuild.dead_reference, (weakref.ref,)


def _must_be_first_look(pickler: StatePickler) -> None:
    if pickler.record.final:
        raise Refused("It points weakly to an object that no saved variable holds.")


def reduce_weak_method(ref: Any, pickler: StatePickler) -> Any:
    method = ref()
    if method is None:
        raise Refused("It points weakly to an object that is gone.")
    if goes_along(pickler, method.__self__):
        return rebuild.method_reference, (method,)
    _must_be_first_look(pickler)
    return rebuild.dead_reference, (weakref.ref,)


def reduce_weak_values(mapping: Any, pickler: StatePickler) -> Any:
    items = _those_along(pickler, list(mapping.items()), lambda item: item[1])
    return type(mapping), (), items, None, None, rebuild.fill_weak_mapping


def reduce_weak_keys(mapping: Any, pickler: StatePickler) -> Any:
    items = _those_along(pickler, list(mapping.items()), lambda item: item[0])
    return type(mapping), (), items, None, None, rebuild.fill_weak_mapping


def reduce_weak_set(members: Any, pickler: StatePickler) -> Any:
    items = _those_along(pickler, list(members), lambda item: item)
    return type(members), (), items, None, None, rebuild.fill_weak_set


# --- the rest


def reduce_exception(error: Any, pickler: StatePickler) -> Any:
    kind = type(error)
    if error.__traceback__ is not None:
        pickler.note("Its traceback is not carried.")
    usual_way: Any = BaseException.__reduce__
    own = kind.__reduce__ is not usual_way and kind.__module__ != "__main__"
    very_usual: Any = object.__reduce_ex__
    if kind.__reduce_ex__ is not very_usual or (own and not issubclass(kind, OSError)):
        return NotImplemented
    usual = error.__reduce_ex__(5)
    args = usual[1] if isinstance(usual[1], tuple) and usual[0] is kind else error.args
    state = (dict(error.__dict__), error.__cause__, error.__context__, error.__suppress_context__)
    return rebuild.exception, (kind, tuple(args)), state, None, None, rebuild.fill_exception


def reduce_match(found: Any, _pickler: StatePickler) -> Any:
    for how in ("finditer", "match", "fullmatch"):
        again = rebuild.match(found.re, found.string, found.pos, found.endpos, found.span(), how)
        if again is not None and again.regs == found.regs:
            args = (found.re, found.string, found.pos, found.endpos, found.span(), how)
            return rebuild.match, args
    raise Refused("This match cannot be found again.")


def reduce_context_variable(variable: contextvars.ContextVar[Any], _pickler: StatePickler) -> Any:
    """The variable, its default, and its value in the context that cells run in."""
    missing = object()
    # get(default) prefers its argument to the variable's own default; without a value there is only that.
    value = variable.get(missing)
    try:
        usual: tuple[Any, ...] = (contextvars.Context().run(variable.get),)
    except LookupError:
        usual = ()
    state = () if value is missing else (value,)
    return rebuild.context_variable, (variable.name, usual), state, None, None, rebuild.fill_context_variable


def reduce_struct(packer: struct.Struct, _pickler: StatePickler) -> Any:
    return type(packer), (packer.format,)
