"""What a saved stream calls to make extended values and containers again. Part of the format."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import Any


def value(kind: Any, base: Any, plain: Any) -> Any:
    return base.__new__(kind, plain)


def fill_value(made: Any, state: Any) -> None:
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    made.__dict__.update(attributes or {})
    for name, held in (slots or {}).items():
        object.__setattr__(made, name, held)


def container(kind: Any, more: dict[str, Any]) -> Any:
    made = _base(kind).__new__(kind)
    if "maxlen" in more:
        deque.__init__(made, (), more["maxlen"])
    return made


def _base(kind: Any) -> Any:
    return next(one for one in kind.__mro__ if one in (OrderedDict, defaultdict, list, dict, set, deque))


def fill_container(made: Any, state: tuple[Any, dict[str, Any], Any]) -> None:
    items, more, own = state
    base = _base(type(made))
    if base is OrderedDict:
        for key, held in items.items():
            OrderedDict.__setitem__(made, key, held)
    elif base in (list, deque):
        base.extend(made, items)
    else:
        base.update(made, items)
    if "default_factory" in more:
        made.default_factory = more["default_factory"]
    if own is not None:
        fill_value(made, own)
