"""Restore after capture is the identity, sharing included: on generated graphs of objects."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.state.inprocess import Bare, agent, as_main, load, save

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just(float("nan")),
)


class Graph:
    """Nodes are made first and filled later, with each other: cycles and sharing of every kind."""

    def __init__(self, draw: Any, kinds: list[str]) -> None:
        self.space: dict[str, Any] = {}
        exec(
            "class Plain: pass\n"
            "class Slotted:\n    __slots__ = ('a', 'b')\n"
            "class Named:\n"
            "    def __init__(self, n): self.n = n; self.more = []\n"
            "    def __hash__(self): return hash(self.n)\n"
            "    def __eq__(self, other): return type(other) is Named and other.n == self.n\n"
            "def adder():\n    held = []\n    return lambda: held\n",
            self.space,
        )
        self.space["__name__"] = "__main__"
        self.nodes = [self._make(kind, number) for number, kind in enumerate(kinds)]
        for node in self.nodes:
            for _ in range(draw(st.integers(0, 4))):
                self._add(
                    node, draw(ATOMS) if draw(st.booleans()) else draw(st.sampled_from(self.nodes)), draw
                )

    def _make(self, kind: str, number: int) -> Any:
        make = {
            "list": list,
            "dict": dict,
            "set": set,
            "plain": self.space["Plain"],
            "slotted": self.space["Slotted"],
            "named": lambda: self.space["Named"](number),
            "closure": self.space["adder"],
            "tuple": lambda: ([], number),
            "bytearray": lambda: bytearray(5),
        }
        return make[kind]()

    def _add(self, node: Any, what: Any, draw: Any) -> None:
        kind = type(node).__name__
        if kind == "list":
            node.append(what)
        elif kind == "dict":
            node[draw(st.integers(0, 3))] = what
        elif kind == "set":
            if type(what).__name__ in ("Named", "int", "str", "NoneType", "float"):
                node.add(what)
        elif kind == "Plain":
            setattr(node, draw(st.sampled_from("abc")), what)
        elif kind == "Slotted":
            setattr(node, draw(st.sampled_from("ab")), what)
        elif kind == "Named":
            node.more.append(what)
        elif kind == "function":
            node().append(what)
        elif kind == "tuple":
            node[0].append(what)
        else:
            node.append(len(node) % 256)


def children(node: Any) -> list[tuple[Any, Any]]:
    kind = type(node).__name__
    if kind in ("list", "tuple"):
        return list(enumerate(node))
    if kind == "dict":
        return list(node.items())
    if kind == "set":
        return sorted(((repr(getattr(one, "n", one)), one) for one in node), key=lambda pair: pair[0])
    if kind == "Slotted":
        return [(name, getattr(node, name)) for name in ("a", "b") if hasattr(node, name)]
    if kind in ("Plain", "Named"):
        return list(vars(node).items())
    if kind == "function":
        return [("held", node())]
    return []


def shape(roots: dict[str, Any]) -> list[Any]:
    """Describe a graph so that equal descriptions mean equal values and equal sharing."""
    numbers: dict[int, int] = {}
    found: list[Any] = []
    todo = list(roots.items())
    while todo:
        where, node = todo.pop(0)
        nan = isinstance(node, float) and node != node
        if nan or not isinstance(node, int | float | str | bytes | None):
            if id(node) in numbers:
                found.append((where, "same", numbers[id(node)]))
                continue
            numbers[id(node)] = len(numbers)
        value = repr(node) if isinstance(node, int | float | str | bytes | bytearray | None) else ""
        inside = children(node)
        found.append((where, type(node).__name__, value, [key for key, _ in inside]))
        todo = [((where, key), one) for key, one in inside] + todo
    return found


KINDS = ["list", "dict", "set", "plain", "slotted", "named", "closure", "tuple", "bytearray"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
def test_what_is_loaded_is_what_was_saved(data: st.DataObject, kinds: list[str]) -> None:
    graph = Graph(data.draw, kinds)
    chosen = data.draw(st.lists(st.sampled_from(graph.nodes), min_size=1, max_size=5))
    roots = {f"v{number}": node for number, node in enumerate(chosen)}
    before = shape(roots)
    shell, fresh = Bare(**roots), Bare()
    for name in ("Plain", "Slotted", "Named", "adder"):
        graph.space[name].__module__ = "__main__"
    with tempfile.TemporaryDirectory() as folder, as_main(shell):
        saved = save(agent(shell), Path(folder))
        assert [one["name"] for one in saved["verdicts"] if one["verdict"] != "kept"] == []
        assert shape(roots) == before
        with as_main(fresh):
            load(agent(fresh), Path(folder) / saved["snapshot"])
    assert shape({name: fresh.user_ns[name] for name in roots}) == before
