"""Which modules a notebook uses, and which of them are its person's own files.

A library is imported again where the state is loaded. A module of the person's own (a file beside
the notebook) is imported again too, and then gets back what its variables held: notebooks count,
cache and configure in such modules.
"""

from __future__ import annotations

import importlib
import re
import site
import sys
import sysconfig
import types
from collections.abc import Iterable
from typing import Any

_OURS = ("gpusession", "gpulease", "__main__", "__mp_main__")


def local_modules(shell: Any) -> dict[str, types.ModuleType]:
    """Return the modules of the person's own that the notebook uses, directly or through each other."""
    candidates = _own_modules()
    if not candidates:
        return {}
    cells = "\n".join(one for one in shell.user_ns.get("In", []) if isinstance(one, str))
    words = set(re.findall(r"\w+", cells))
    todo = [name for name in candidates if name.rpartition(".")[2] in words]
    todo += _named_in(shell.user_ns)
    found: dict[str, types.ModuleType] = {}
    while todo:
        name = todo.pop()
        if name in candidates and name not in found:
            found[name] = candidates[name]
            todo += _named_in(vars(candidates[name]))
    return found


def _named_in(namespace: dict[str, Any]) -> list[str]:
    named = []
    for value in list(namespace.values()):
        if isinstance(value, types.ModuleType):
            named.append(value.__name__)
        else:
            named += _origins(value)
    return named


def _origins(value: Any) -> list[str]:
    """Where a value's class (and a function or class itself) comes from. Runs none of its code."""
    of = [type(value), value] if isinstance(value, type | types.FunctionType) else [type(value)]
    return [one.__module__ for one in of if isinstance(one.__module__, str)]


def _own_modules() -> dict[str, types.ModuleType]:
    """Return the loaded modules that are not part of Python or of an installed library."""
    roots = tuple(
        {
            path.rstrip("/") + "/"
            for path in (*sysconfig.get_paths().values(), *_site(), sys.base_prefix + "/lib")
        }
    )
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) if isinstance(module, types.ModuleType) else None
        if not isinstance(file, str) or name.partition(".")[0] in _OURS or module.__name__ != name:
            continue
        if not file.startswith(roots) and "/site-packages/" not in file and "/dist-packages/" not in file:
            found[name] = module
    return found


def _site() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def handmade_modules(namespace: dict[str, Any]) -> list[types.ModuleType]:
    """Return the modules that were made in the notebook, not imported."""
    return [
        one
        for one in [*namespace.values(), *sys.modules.values()]
        if isinstance(one, types.ModuleType)
        and getattr(one, "__spec__", None) is None
        and not getattr(one, "__file__", None)
        and one.__name__ not in (*sys.builtin_module_names, "__main__")
    ]


def used_modules(variables: Iterable[Any]) -> list[str]:
    """Return the modules that variables are, or come from, with their loaded submodules, parents first."""
    wanted: dict[str, None] = {}
    bound = []
    for value in variables:
        if isinstance(value, types.ModuleType):
            wanted[value.__name__] = None
            bound.append(value.__name__)
        else:
            for name in _origins(value):
                wanted[name] = None
    for name in list(sys.modules):
        if any(name.startswith(f"{one}.") for one in bound):
            wanted[name] = None
    return [
        name
        for name in wanted
        if name.partition(".")[0] not in (*_OURS, "builtins") and _can_be_imported(name)
    ]


def _can_be_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return isinstance(module, types.ModuleType) and getattr(module, "__spec__", None) is not None


def import_all(names: Iterable[str]) -> dict[str, str]:
    """Import what is not loaded yet; return why some could not be."""
    failed = {}
    for name in names:
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 — a module may raise whatever it likes
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    return failed
