"""What a saved stream calls to make classes again. See `gpusession.state.rebuild` for the promises."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

from gpusession.state import definitions


def skeleton(
    metaclass: type,
    maker: type | None,
    name: str,
    bases: tuple[type, ...],
    body: dict[str, Any],
    mark: str = "",
) -> Any:
    """Make a class with nothing in it yet, unless it stands in the notebook already (``mark`` tells).

    ``maker``: whose ``__new__`` makes it; None: the metaclass is a library's and makes it itself.
    """
    standing = definitions.standing()
    known = standing.instead_of(name, mark) if standing is not None and body["__qualname__"] == name else None
    if known is not None:
        return known
    if maker is None:
        return types.new_class(name, bases, {"metaclass": metaclass}, lambda space: space.update(body))
    with _without_hooks(bases):
        return (
            type.__new__(metaclass, name, bases, dict(body))
            if maker is not _abc()
            else _abc().__new__(metaclass, name, bases, dict(body))
        )


def _abc() -> Any:
    import abc

    return abc.ABCMeta


@contextlib.contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Keep the notebook's own ``__init_subclass__`` from running a second time."""
    hooked = {}
    for base in bases:
        for one in base.__mro__:
            if one.__module__ == "__main__" and "__init_subclass__" in one.__dict__:
                hooked[one] = one.__dict__["__init_subclass__"]
    try:
        for one in hooked:
            type.__setattr__(one, "__init_subclass__", classmethod(_nothing))
        yield
    finally:
        for one, hook in hooked.items():
            type.__setattr__(one, "__init_subclass__", hook)


def _nothing(_cls: Any, /, **_options: Any) -> None:
    return


def fill_class(made: Any, state: tuple[dict[str, Any], list[type]]) -> None:
    if _stands(made):
        return
    attributes, registered = state
    plain = _is_plain(type(made))
    for name, value in attributes.items():
        if plain:
            type.__setattr__(made, name, value)
        elif name not in ("__doc__", "__module__", "__qualname__") or made.__dict__.get(name) != value:
            setattr(made, name, value)
    for one in registered:
        _abc().register(made, one)


def _is_plain(metaclass: type) -> bool:
    import abc
    import enum

    known = (type, abc.ABCMeta, enum.EnumType)
    return all(base in known or base is object or base.__module__ == "__main__" for base in metaclass.__mro__)


def _stands(kind: Any) -> bool:
    standing = definitions.standing()
    return standing is not None and standing.is_reused(kind)


def enum_member(kind: Any, base: type, plain: tuple[Any, ...], name: str | None = None) -> Any:
    if _stands(kind) and name in kind.__members__:
        return kind[name]
    return object.__new__(kind) if base is object else base.__new__(kind, *plain)


def fill_enum_member(made: Any, state: dict[str, Any]) -> None:
    if _stands(type(made)):
        return
    made.__dict__.clear()
    made.__dict__.update(state)
