"""What belongs to the person in an IPython shell, and what is the shell's own.

Names the variables, the results in ``Out`` and the history, and puts the history back. Tells which
cell made a variable, for the hint "run cell 3 again". Promises: looking changes nothing.
"""

from __future__ import annotations

import ast
import re
from typing import Any

_SHELL_NAMES = {
    "In",
    "Out",
    "_ih",
    "_oh",
    "_dh",
    "_i",
    "_ii",
    "_iii",
    "__name__",
    "__doc__",
    "__package__",
    "__loader__",
    "__spec__",
    "__builtin__",
    "__builtins__",
    "__session__",
}
_NUMBERED = re.compile(r"^_i?\d+$")
UNDERS = ("_", "__", "___")
SILENT = ("__annotations__", "_exit_code", "__file__")
"""Carried like variables, but not worth a line in a verdict."""


def variables(shell: Any) -> dict[str, Any]:
    """Return the person's variables, in the order in which they were made."""
    hidden = shell.user_ns_hidden
    unders = {name for name in UNDERS if _is_result(shell, name)}
    found = {}
    for name, value in list(shell.user_ns.items()):
        if not isinstance(name, str) or name in _SHELL_NAMES or name in unders:
            continue
        if _NUMBERED.match(name) and _is_history(shell, name, value):
            continue
        if name in hidden and hidden[name] is value and name in ("get_ipython", "exit", "quit", "open"):
            continue
        found[name] = value
    return found


def _is_result(shell: Any, name: str) -> bool:
    value = shell.user_ns.get(name, "")
    if isinstance(value, str) and value == "":
        return True
    return getattr(shell.displayhook, name, None) is value


def _is_history(shell: Any, name: str, value: Any) -> bool:
    number = int(name.lstrip("_i"))
    if name.startswith("_i"):
        return isinstance(value, str)
    return number in shell.user_ns.get("Out", {}) and shell.user_ns["Out"][number] is value


def results(shell: Any) -> dict[int, Any]:
    """Return what ``Out`` holds."""
    out = shell.user_ns.get("Out")
    return dict(out) if isinstance(out, dict) else {}


def hidden_names(shell: Any) -> list[str]:
    """Variables that ``%who`` does not show (``%pylab`` brings such)."""
    hidden = shell.user_ns_hidden
    return [name for name, value in variables(shell).items() if name in hidden and hidden[name] is value]


def capture_history(shell: Any) -> dict[str, Any]:
    """Return the history as plain data."""
    manager = shell.history_manager
    space = shell.user_ns
    return {
        "In": [str(one) for one in space.get("In", [])],
        "raw": [str(one) for one in getattr(manager, "input_hist_raw", [])],
        "last": {name: space[name] for name in ("_i", "_ii", "_iii") if isinstance(space.get(name), str)},
        "numbered": [name for name in space if isinstance(name, str) and _NUMBERED.match(name)],
        "manager": {
            name: getattr(manager, name)
            for name in ("_i", "_ii", "_iii", "_i00")
            if isinstance(getattr(manager, name, None), str)
        },
    }


def restore_history(shell: Any, saved: dict[str, Any], count: int) -> None:
    """Put the history back. ``Out`` is filled by then."""
    manager, space = shell.history_manager, shell.user_ns
    space["In"][:] = saved["In"]
    if manager is not None:
        manager.input_hist_raw[:] = saved["raw"]
        for name, value in saved["manager"].items():
            setattr(manager, name, value)
    space.update(saved["last"])
    out = space["Out"]
    for name in saved["numbered"]:
        number = int(name.lstrip("_i"))
        if name.startswith("_i"):
            if number < len(saved["In"]):
                space[name] = saved["In"][number]
        elif number in out:
            space[name] = out[number]
    shell.execution_count = count


def capture_unders(shell: Any) -> dict[str, Any]:
    """Return ``_``, ``__`` and ``___`` where they are the last results."""
    space = shell.user_ns
    return {
        name: space[name]
        for name in UNDERS
        if _is_result(shell, name)
        and not (isinstance(space.get(name, ""), str) and space.get(name, "") == "")
    }


def restore_under(shell: Any, name: str, value: Any) -> None:
    shell.user_ns[name] = value
    setattr(shell.displayhook, name, value)


def cell_that_makes(shell: Any, name: str) -> int | None:
    """Return the number of the last cell that binds a name, as far as its text tells."""
    cells = shell.user_ns.get("In", [])
    for number in range(len(cells) - 1, 0, -1):
        source = cells[number]
        if not isinstance(source, str) or name not in source or len(source) > 1_000_000:
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(_binds(node, name) for node in ast.walk(tree)):
            return number
    return None


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and isinstance(node.ctx, ast.Store)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.alias):
        return (node.asname or node.name.split(".")[0]) == name
    return isinstance(node, ast.ExceptHandler) and node.name == name
