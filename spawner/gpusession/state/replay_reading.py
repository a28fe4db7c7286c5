"""What a cell's text says: which names it reads, makes and changes, and what it does beside that.

Static, and so an estimate: `gpusession.state.replay_ledger` knows what a cell really made. Promises:
never raises, whatever the text is; nothing is run. What cannot be looked into (``exec``, ``%run``) is
said as an effect.
"""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAX_CHARACTERS = 1_000_000

FILES, NETWORK, INSTALLS, PROGRAMS, HIDDEN = "files", "network", "installs", "programs", "hidden"

_EFFECTS = {
    "requests": NETWORK,
    "httpx": NETWORK,
    "urllib.request": NETWORK,
    "urlopen": NETWORK,
    "socket": NETWORK,
    "smtplib": NETWORK,
    "ftplib": NETWORK,
    "boto3": NETWORK,
    "shutil": FILES,
    "os.remove": FILES,
    "os.unlink": FILES,
    "os.rename": FILES,
    "os.replace": FILES,
    "os.makedirs": FILES,
    "os.mkdir": FILES,
    "os.rmdir": FILES,
    "torch.save": FILES,
    "joblib.dump": FILES,
    "pickle.dump": FILES,
    "json.dump": FILES,
    "np.save": FILES,
    "numpy.save": FILES,
    "subprocess": PROGRAMS,
    "os.system": PROGRAMS,
    "os.popen": PROGRAMS,
    "exec": HIDDEN,
    "eval": HIDDEN,
    "globals": HIDDEN,
    "execfile": HIDDEN,
}
"""By the first parts of what is called."""
_METHODS = {
    "write_text": FILES,
    "write_bytes": FILES,
    "unlink": FILES,
    "mkdir": FILES,
    "savefig": FILES,
    "savez": FILES,
    "to_csv": FILES,
    "to_parquet": FILES,
    "to_pickle": FILES,
    "to_excel": FILES,
    "to_feather": FILES,
    "to_hdf": FILES,
    "to_sql": NETWORK,
    "run_cell_magic": HIDDEN,
}
"""By the name of the method, whatever it is called on."""
_HARMLESS = frozenset({"print", "display", "len", "type", "repr", "str", "help", "id", "isinstance", "dir"})
"""Functions that change none of their arguments."""
_BUILTIN = frozenset(dir(builtins)) | {"get_ipython", "display", "In", "Out"}


@dataclass(frozen=True)
class Reading:
    """What one cell does, as far as its text tells. Names are those of the notebook's namespace."""

    reads: frozenset[str] = frozenset()
    """Needed before it runs."""
    makes: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    """Of those: modules and what comes from them, the same whenever they are imported."""
    changes: frozenset[str] = frozenset()
    """Objects that it may change in place."""
    functions: dict[str, frozenset[str]] = field(default_factory=dict)
    """By function and class: the names that its code needs when it is called."""
    effects: frozenset[str] = frozenset()


@functools.lru_cache(maxsize=2000)
def read_cell(source: str) -> Reading:
    """Read one cell, as IPython gives it to Python (magics are calls)."""
    if len(source) > MAX_CHARACTERS:
        return Reading(effects=frozenset({HIDDEN}))
    try:
        tree = ast.parse(source)
        reader = _Reader()
        for statement in tree.body:
            reader.visit(statement)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Reading(effects=frozenset({HIDDEN}))
    return Reading(
        frozenset(reader.reads - _BUILTIN),
        frozenset(reader.makes),
        frozenset(reader.imports),
        frozenset(reader.changes - _BUILTIN),
        {name: frozenset(needs - _BUILTIN) for name, needs in reader.functions.items()},
        frozenset(reader.effects),
    )


class _Reader(ast.NodeVisitor):
    """Walks a module's statements in the order in which they run."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.makes: set[str] = set()
        self.imports: set[str] = set()
        self.changes: set[str] = set()
        self.functions: dict[str, set[str]] = {}
        self.effects: set[str] = set()

    # --- names

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.makes:
                self.reads.add(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.makes.add(node.id)

    def visit_Import(self, node: ast.Import) -> None:
        self._import(one.asname or one.name.split(".")[0] for one in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._import(one.asname or one.name for one in node.names if one.name != "*")
        if any(one.name == "*" for one in node.names):
            self.effects.add(HIDDEN)

    def _import(self, names: Iterable[str]) -> None:
        found = set(names)
        self.makes |= found
        self.imports |= found

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        for statement in node.body:
            self.visit(statement)

    # --- what is evaluated before its target is bound

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._target(target)
            if isinstance(target, ast.Name) and isinstance(node.value, ast.Lambda):
                self.functions[target.id] = _needs(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self._target(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if (name := _base(node.target)) is not None:
            if name not in self.makes:
                self.reads.add(name)
            self.changes.add(name)
        self._target(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._target(node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._target(node.target)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_AsyncFor = visit_For  # type: ignore[assignment]

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        if node.optional_vars is not None:
            self._target(node.optional_vars)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self._target(target)

    def _target(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.makes.add(node.id)
        elif isinstance(node, ast.Tuple | ast.List):
            for one in node.elts:
                self._target(one)
        elif isinstance(node, ast.Starred):
            self._target(node.value)
        else:
            if (name := _base(node)) is not None:
                self.changes.add(name)
            self.visit(node)

    # --- code that runs later, or in a scope of its own

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for one in (*node.decorator_list, *_defaults(node.args)):
            self.visit(one)
        self.makes.add(node.name)
        self.functions[node.name] = _needs(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for one in (*node.decorator_list, *node.bases, *(word.value for word in node.keywords)):
            self.visit(one)
        inner = _Reader()
        for statement in node.body:
            inner.visit(statement)
        self.reads |= inner.reads - self.makes
        self.effects |= inner.effects
        needs: set[str] = set()
        for later in inner.functions.values():
            needs |= later
        self.makes.add(node.name)
        self.functions[node.name] = needs - inner.makes

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.reads |= _needs(node) - self.makes
        for one in _defaults(node.args):
            self.visit(one)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        inner = _Reader()
        for one in node.generators:
            inner.visit(one.iter)
            inner._target(one.target)
            for test in one.ifs:
                inner.visit(test)
        if isinstance(node, ast.DictComp):
            inner.visit(node.key)
            inner.visit(node.value)
        else:
            inner.visit(node.elt)
        self.reads |= inner.reads - self.makes
        self.effects |= inner.effects

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    # --- calls

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            called = _dotted(value.func)
            if called is None or called.split(".")[-1] not in _HARMLESS:
                if isinstance(value.func, ast.Attribute) and (name := _base(value.func)) is not None:
                    self.changes.add(name)
                self.changes.update(name for one in value.args if (name := _base(one)) is not None)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.effects.update(_effects(node))
        self.generic_visit(node)


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    yield from arguments.defaults
    yield from (one for one in arguments.kw_defaults if one is not None)


def _needs(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """The names that a function's code takes from the notebook."""
    loaded: set[str] = set()
    local: set[str] = set()
    shared: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            (loaded if isinstance(one.ctx, ast.Load) else local).add(one.id)
        elif isinstance(one, ast.arg):
            local.add(one.arg)
        elif isinstance(one, ast.Global):
            shared.update(one.names)
        elif isinstance(one, ast.Import | ast.ImportFrom):
            local.update(name.asname or name.name.split(".")[0] for name in one.names)
        elif isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            local.update([one.name] if one is not node and one.name else [])
    return (loaded - local) | shared


def _base(node: ast.AST) -> str | None:
    """The variable at the root of ``a.b[c].d``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _dotted(node: ast.AST) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return ".".join([node.id, *reversed(parts)])
    return None


def _effects(node: ast.Call) -> Iterator[str]:
    called = _dotted(node.func)
    if called is not None:
        parts = called.split(".")
        for length in range(1, len(parts) + 1):
            if (effect := _EFFECTS.get(".".join(parts[:length]))) is not None:
                yield effect
        if called == "open" and _writes(node):
            yield FILES
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if method in _METHODS:
        yield _METHODS[method]
    words = " ".join(
        one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
    )
    if method in ("system", "getoutput") or method == "run_line_magic":
        if (
            "pip install" in words
            or "conda install" in words
            or words.startswith(("pip ", "conda ", "mamba "))
        ):
            yield INSTALLS
        elif method != "run_line_magic":
            yield PROGRAMS
        elif words.split(" ")[0] in ("run", "load", "store", "reset", "sx", "system"):
            yield HIDDEN


def _writes(node: ast.Call) -> bool:
    modes = [one.value for one in node.keywords if one.arg == "mode"] + node.args[1:2]
    return any(
        not isinstance(one, ast.Constant) or not isinstance(one.value, str) or set("wax+") & set(one.value)
        for one in modes
    )
