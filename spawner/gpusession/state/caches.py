"""Functions with a memory (`functools.lru_cache`): the function, what it remembers, and its statistics.

CPython shows neither the remembered results nor a way to put them back. They are read from what the
wrapper refers to, and put back by calling the wrapper while the function's code is one that
answers from a list: nothing of the notebook's own code runs. What cannot be carried (a remembered
connection, say) costs the memory, not the function, and is said.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

from gpusession.state.pickling import Broken, StatePickler, Stream

REPLAY_LIMIT = 2_000_000
"""So many calls are replayed at most (about 0.1 µs each); beyond, the statistics start anew."""


def reduce_lru_cache(func: Any, pickler: StatePickler) -> Any:
    name, module = getattr(func, "__qualname__", None), sys.modules.get(getattr(func, "__module__", "") or "")
    if module is not None and module.__name__ != "__main__" and name:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is func:
            return str(name)
    pickler.by_value = True
    limits, info = func.cache_parameters(), func.cache_info()
    memory = _memory(func, limits, info)
    if memory and not _can_be_saved(func, memory, pickler):
        memory = None
    if memory is None:
        pickler.note("What its cache remembered is computed again.")
    else:
        pickler.record.keep.append(memory)
    state = (dict(func.__dict__), memory, info.hits, info.misses)
    args = (func.__wrapped__, limits["maxsize"], limits["typed"])
    return cached, args, state, None, None, fill_cached


def _memory(func: Any, limits: dict[str, Any], info: Any) -> list[Any] | None:
    """Return what it remembers as (args, kwargs, result), oldest first; None: it cannot be told."""
    if type(func.__wrapped__) is not types.FunctionType or limits["typed"]:
        return None
    if info.hits + info.misses > REPLAY_LIMIT:
        return None
    held = gc.get_referents(func)
    # In the order of CPython's lru_cache_tp_traverse: the links, the dict, the function, the mark.
    at = next((n for n, one in enumerate(held) if one is func.__wrapped__), 0)
    cache, mark = held[at - 1], held[at + 1]
    if type(cache) is not dict:
        return None
    if limits["maxsize"] is None:
        items = list(cache.items())
    else:
        links = held[at - 1 - 3 * len(cache) : at - 1]  # key, result and type of each
        items = list(zip(links[0::3], links[1::3], strict=True))
    if len(items) != info.currsize or any(key not in cache for key, _ in items):
        return None
    return [(*_arguments(key, mark), result) for key, result in items]


def _arguments(key: Any, mark: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if type(key) is not tuple:
        return (key,), {}
    for n, one in enumerate(key):
        if one is mark:
            rest = key[n + 1 :]
            return key[:n], dict(zip(rest[0::2], rest[1::2], strict=True))
    return key, {}


def _can_be_saved(func: Any, memory: list[Any], pickler: StatePickler) -> bool:
    """Tried apart, so that it costs the memory alone. A method's memory holds objects of the class that
    holds the method: met again on the way, it is taken for saveable, and asked only once in a save.
    """
    known = pickler.record.memories
    if id(func) not in known:
        known[id(func)] = True
        pickler.record.keep.append(func)
        try:
            type(pickler)(Stream(0), pickler.kinds, pickler.anchored, pickler.record).dump(memory)
        except (Broken, RecursionError):
            del known[id(func)]
            raise
        except Exception:  # noqa: BLE001 — whatever it is, the memory is not carried
            known[id(func)] = False
    return known[id(func)]


# --- named inside snapshots: names and arguments are part of the format


def cached(wrapped: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(wrapped)


def fill_cached(made: Any, state: tuple[dict[str, Any], list[Any] | None, int, int]) -> None:
    attributes, memory, hits, misses = state
    if memory is not None:
        _replay(made, memory, hits, misses)
    made.__dict__.clear()
    made.__dict__.update(attributes)


class _Forgotten(Exception):
    """Answers a call whose result is not remembered."""


def _replay(made: Any, memory: list[Any], hits: int, misses: int) -> None:
    wrapped = made.__wrapped__
    answers = iter([result for _, _, result in memory])
    own = wrapped.__code__
    wrapped.__code__ = _answering(answers, own)
    try:
        for args, kwargs, _ in memory:
            made(*args, **kwargs)
        if memory:
            args, kwargs, _ = memory[-1]
            for _ in range(hits):
                made(*args, **kwargs)
        for _ in range(misses - len(memory)):
            try:
                made(object())
            except _Forgotten:
                continue
    finally:
        wrapped.__code__ = own


def _answering(answers: Iterator[Any], own: types.CodeType) -> types.CodeType:
    """Code that fits a function with these free variables and answers from a list."""

    def answer(*_args: Any, **_kwargs: Any) -> Any:
        for one in answers:
            return one
        raise _Forgotten

    scope: dict[str, Any] = {}
    exec("def shim(*args, **kwargs): return (5.5).__call__(*args, **kwargs)", scope)
    code: types.CodeType = scope["shim"].__code__
    constants = tuple(answer if one == 5.5 else one for one in code.co_consts)
    return code.replace(co_consts=constants, co_freevars=own.co_freevars)
