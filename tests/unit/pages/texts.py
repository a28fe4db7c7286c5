"""What people are told by the hub's pages and by spawners, found in the source: for the catalogs' tests.

A text is given to one of `SINKS`, which say it in the reader's language; so it must be written there as it
stands in the catalogs, whole, with its values beside it (`gpuspawner.language.Sentence`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from jinja2.ext import babel_extract

from gpulease import errors

ROOT = Path(__file__).parents[3]
TEMPLATES = sorted((ROOT / "hub/gpuhub/pages/templates").glob("*.html"))
SCRIPTS = sorted((ROOT / "hub/gpuhub/pages/static").glob("*.js"))
BROKER_PAGE = ROOT / "hub/gpuhub/api/page.py"
SPAWNER = ROOT / "spawner/gpuspawner"
PYTHON = [*sorted(SPAWNER.rglob("*.py")), ROOT / "hub/gpuhub/pages/hub.py", BROKER_PAGE]

Place = int | str
SINKS: dict[str, tuple[Place, ...]] = {
    "say": (1, "message"),
    "Refusal": (0, "message", "hint"),
    "Trouble": (0, 1, "message", "hint"),
    "Look": (2, "message", "late"),
    "NotOnOffer": (0,),
    "Sentence": (0,),
    "N_": (0,),
    "gettext": (0,),
    "_": (0,),
}
ERRORS = ("NotAllowed", "Unavailable", "Conflict", "NotFound", "BadRequest")
"""They may come from another process, as plain text; what stands in them as a whole is translated."""
NO_WORDS = re.compile(r"gpuhub|UTC|·|×")


class Bypasses(Exception):
    """A text that no catalog can hold."""


def in_python(source: str) -> Iterator[str]:
    """Yield the texts. Raises `Bypasses` for one that is put together from pieces."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for given in _given(node, SINKS.get(name, ())):
            for text in _written(given):
                if text is None:
                    raise Bypasses(f"line {given.lineno}: {ast.unparse(given)}")
                yield text
        if name in ERRORS:
            for given in _given(node, (0, "hint")):
                yield from (text for text in _written(given) if text)


def _given(call: ast.Call, places: tuple[Place, ...]) -> Iterator[ast.expr]:
    for place in places:
        if isinstance(place, int):
            yield from call.args[place : place + 1]
        else:
            yield from (keyword.value for keyword in call.keywords if keyword.arg == place)


def _written(node: ast.expr) -> Iterator[str | None]:
    """Yield what stands there; None for a text that is made on the spot."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr() | ast.BinOp():
            yield None
        case ast.Call(func=ast.Attribute(attr="format" | "join")):
            yield None
        case ast.IfExp(body=one, orelse=other):
            yield from _written(one)
            yield from _written(other)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _written(value)


def in_template(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        for _, _, message, _ in babel_extract(file, ("gettext", "ngettext", "_"), [], {"encoding": "utf-8"}):
            if isinstance(message, str):
                yield message


def beside_gettext(source: str) -> list[str]:
    """Return the words of a template (or of a piece of HTML) that no catalog knows of."""
    source = re.sub(r"\{%-?\s*trans.*?endtrans\s*-?%\}", "", source, flags=re.DOTALL)
    source = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "", source, flags=re.DOTALL)
    seen = _Words()
    seen.feed(source)
    return seen.found


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._quiet = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._quiet += tag in ("script", "style")
        for name, value in attrs:
            shown = name in ("title", "aria-label", "alt", "placeholder") or name.startswith("data-")
            if shown and not re.fullmatch("[a-z/]*", value or ""):  # an address
                self._look(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self._look(data)

    def _look(self, text: str) -> None:
        if re.search(r"[^\W\d_]", NO_WORDS.sub("", text)):
            self.found.append(text.strip())


def sentences_in_script(path: Path) -> list[str]:
    """Return literals that read like a sentence: a script chooses among texts, it has none."""
    code = re.sub(r"//.*", "", path.read_text())
    return [text for _, text in re.findall(r"(['\"`])([A-Z][^'\"`]* [^'\"`]*)\1", code)]


def all_texts() -> set[str]:
    """Return every text that the catalogs should hold."""
    found = {text for path in PYTHON for text in in_python(path.read_text())}
    found |= {text for path in TEMPLATES for text in in_template(path)}
    found |= {getattr(errors, name).default_hint for name in ERRORS}
    return {text for text in found if text}
