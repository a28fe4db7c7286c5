"""What a notebook hung into things that are not its own, and what it left running.

Hooks and magics of the shell, attributes of modules and classes have no variable of their own.
Functions and objects of the notebook that a library or the shell holds travel like variables, under
a key that says where they hang; what runs (threads, tasks) cannot travel and is named, so that nobody
misses it in silence.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any

_TRAITS = {
    "shell": ("ast_node_interactivity", "autoawait", "pdb", "show_rewritten_input"),
}
_STANDARD_EXTENSIONS = {"storemagic"}


def capture(shell: Any, local: Mapping[str, types.ModuleType]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of everything that hangs somewhere."""
    yield from _shell(shell)
    yield from _module_variables(local)
    yield from _attached(shell, local)


def restore(shell: Any, key: str, value: Any) -> None:
    """Hang one of them up again. Raises what goes wrong."""
    kind, _, name = key.partition(":")
    if kind == "ipython":
        _restore_shell(shell, name, value)
    elif kind == "hook":
        event = name.partition("#")[0]
        shell.events.register(event, value)
    elif kind == "magic":
        style, _, magic = name.partition(":")
        shell.magics_manager.magics[style][magic] = value
    elif kind == "format":
        mime = name.partition("#")[0]
        for_type, printer = value
        shell.display_formatter.formatters[mime].for_type(for_type, printer)
    elif kind == "module":
        setattr(sys.modules[name.rpartition(":")[0]], name.rpartition(":")[2], value)
    elif kind == "attached":
        owner, attribute, thing = value
        setattr(owner, attribute, thing)


KINDS = ("ipython", "hook", "magic", "format", "module", "attached")


# --- the shell


def _shell(shell: Any) -> Iterator[tuple[str, Any]]:
    settings: dict[str, Any] = {}
    for trait in _TRAITS["shell"]:
        value = getattr(shell, trait, None)
        if isinstance(value, str | int | bool):
            settings[trait] = value
    plain = shell.display_formatter.formatters.get("text/plain") if shell.display_formatter else None
    if plain is not None:
        settings["text/plain"] = {
            name: getattr(plain, name)
            for name in ("float_precision", "max_width", "max_seq_length", "pprint")
            if hasattr(plain, name)
        }
    settings["xmode"] = _mode_of_errors(shell)
    settings["future"] = shell.compile.flags  # from __future__ import … holds for all later cells
    settings["extensions"] = sorted(set(shell.extension_manager.loaded) - _STANDARD_EXTENSIONS)
    inline = [one for one in getattr(shell, "configurables", ()) if type(one).__name__ == "InlineBackend"]
    if inline:
        settings["inline"] = {
            name: getattr(inline[0], name)
            for name in ("figure_formats", "rc", "print_figure_kwargs", "close_figures")
            if hasattr(inline[0], name)
        }
    reloader = shell.magics_manager.registry.get("AutoreloadMagics") if shell.magics_manager else None
    if reloader is not None and hasattr(reloader, "_reloader"):
        settings["autoreload"] = (reloader._reloader.enabled, reloader._reloader.check_all)
    yield "ipython:settings", settings
    for event, callbacks in shell.events.callbacks.items():
        for number, callback in enumerate(callbacks):
            if is_the_notebooks(callback):
                yield f"hook:{event}#{number}", callback
    for style, magics in shell.magics_manager.magics.items():
        for name, magic in magics.items():
            if is_the_notebooks(magic):
                yield f"magic:{style}:{name}", magic
    for mime, formatter in (shell.display_formatter.formatters if shell.display_formatter else {}).items():
        for number, (kind, printer) in enumerate(formatter.type_printers.items()):
            if is_the_notebooks(printer):
                yield f"format:{mime}#{number}", (kind, printer)


def _mode_of_errors(shell: Any) -> Any:
    return getattr(getattr(shell, "InteractiveTB", None), "mode", None)


def _restore_shell(shell: Any, name: str, value: Any) -> None:
    del name
    for trait in _TRAITS["shell"]:
        if trait in value and getattr(shell, trait, None) != value[trait]:
            setattr(shell, trait, value[trait])
    if value["xmode"] is not None and value["xmode"] != _mode_of_errors(shell):
        shell.InteractiveTB.set_mode(mode=value["xmode"])
    plain = shell.display_formatter.formatters.get("text/plain")
    for trait, setting in value.get("text/plain", {}).items():
        if getattr(plain, trait) != setting:
            setattr(plain, trait, setting)
    shell.compile.flags |= value["future"]
    missing = [one for one in value["extensions"] if one not in shell.extension_manager.loaded]
    for extension in missing:
        shell.extension_manager.load_extension(extension)
    for one in getattr(shell, "configurables", ()):
        if type(one).__name__ == "InlineBackend":
            for trait, setting in value.get("inline", {}).items():
                if getattr(one, trait) != setting:
                    setattr(one, trait, setting)
    reloader = shell.magics_manager.registry.get("AutoreloadMagics")
    if "autoreload" in value and reloader is not None:
        reloader._reloader.enabled, reloader._reloader.check_all = value["autoreload"]


def is_the_notebooks(thing: Any) -> bool:
    """Was this made in the notebook (or does it belong to an object that was)?"""
    if isinstance(thing, types.MethodType):
        thing = thing.__func__
    if isinstance(thing, types.FunctionType):
        return thing.__module__ == "__main__" or thing.__globals__.get("__name__") == "__main__"
    if isinstance(thing, type):
        return thing.__module__ == "__main__"
    return type(thing).__module__ == "__main__"


# --- modules and classes of others


def _module_variables(local: Mapping[str, types.ModuleType]) -> Iterator[tuple[str, Any]]:
    """What the variables of the person's own modules hold."""
    for module_name, module in local.items():
        for name, value in list(vars(module).items()):
            if name.startswith("__") or isinstance(value, types.ModuleType):
                continue
            if isinstance(
                value, type | types.FunctionType | types.BuiltinFunctionType
            ) and not is_the_notebooks(value):
                continue
            yield f"module:{module_name}:{name}", value


def _attached(shell: Any, local: Mapping[str, types.ModuleType]) -> Iterator[tuple[str, Any]]:
    """Functions and objects of the notebook that were set on modules and classes it uses."""
    owners: dict[int, Any] = {}
    for value in list(shell.user_ns.values()):
        if isinstance(value, types.ModuleType) and value.__name__ not in (*local, "__main__"):
            if sys.modules.get(value.__name__) is value:
                owners[id(value)] = value
                owners.update({id(one): one for one in list(vars(value).values()) if isinstance(one, type)})
        elif isinstance(value, type):
            owners[id(value)] = value
    owners[id(builtins)] = builtins
    for owner in owners.values():
        if isinstance(owner, type) and (owner.__module__ == "__main__" or owner.__module__ in local):
            continue
        for name, value in list(vars(owner).items()):
            if isinstance(value, staticmethod | classmethod):
                value = value.__func__
            if isinstance(value, property):
                value = value.fget
            accessor = (
                getattr(value, "_accessor", None)
                if type(value).__name__ in ("Accessor", "CachedAccessor")
                else None
            )
            if (isinstance(value, types.FunctionType | type) and is_the_notebooks(value)) or (
                accessor is not None and is_the_notebooks(accessor)
            ):
                label = getattr(owner, "__qualname__", getattr(owner, "__name__", ""))
                yield (
                    f"attached:{owner.__module__ if isinstance(owner, type) else ''}.{label}.{name}",
                    (
                        owner,
                        name,
                        vars(owner)[name],
                    ),
                )


# --- what runs


def running(shell: Any) -> Iterator[tuple[str, str, str, str]]:
    """Yield title, type, reason and hint of what the notebook has running in the background."""
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None) or getattr(thread, "function", None)
        mine = type(thread).__module__ == "__main__" or (target is not None and is_the_notebooks(target))
        if mine and not _is_variable(shell, thread):
            yield (
                f"thread {thread.name}",
                "threading.Thread",
                "It runs in the background and cannot leave its process.",
                "Start it again.",
            )
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    for task in asyncio.all_tasks(loop) if loop is not None and asyncio is not None else ():
        code = getattr(task.get_coro(), "cr_code", None)
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and frame.f_globals is shell.user_ns and not _is_variable(shell, task):
            name = getattr(code, "co_name", "task")
            yield (
                f"task {name}",
                "asyncio.Task",
                "It runs in the background and cannot leave its process.",
                "Start it again.",
            )


def _is_variable(shell: Any, thing: Any) -> bool:
    return any(value is thing for value in list(shell.user_ns.values()))
