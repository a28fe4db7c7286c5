"""The language in which a person is spoken to: on the hub's pages, and while a server starts.

English sentences are the keys. Beside this lies a catalog per language
(``locale/ko/LC_MESSAGES/gpuhub.po``), read as it is at first use: there is nothing to compile. The
language is that of the browser whose request is being answered (`listen_to`), and holds for all that is
done for that request. What has no translation is said as it is: so an operator's own texts come through.

A text with values in it is a `Sentence`: everywhere a plain English text, until `spoken` says it.
"""

from __future__ import annotations

import io
import os
from contextvars import ContextVar
from functools import cache, lru_cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

SOURCE = "en"
LOCALE = Path(__file__).parent / "locale"
MAX_HEADER = 400

_language: ContextVar[str] = ContextVar("gpuhub_language", default=SOURCE)


class Sentence(str):
    """An English text, filled with values: ``Sentence("Starting {what}.", what=…)``."""

    text: str
    values: dict[str, object]

    def __new__(cls, text: str, **values: object) -> Sentence:
        self = super().__new__(cls, text.format(**values))
        self.text, self.values = text, values
        return self


def N_(text: str) -> str:  # the customary name
    """Mark a text for the catalogs that is said later."""
    return text


def listen_to(accept_language: str | None) -> None:
    """From now on this request is answered in the language that its browser asks for."""
    _language.set(negotiated((accept_language or "")[:MAX_HEADER]))


def language() -> str:
    """Return the language that is spoken now."""
    return _language.get()


def spoken(text: str) -> str:
    """Return ``text`` as it is said now."""
    if isinstance(text, Sentence):
        values = {
            name: spoken(value) if isinstance(value, str) else value for name, value in text.values.items()
        }
        return gettext(text.text).format(**values)
    return gettext(text)


def gettext(text: str) -> str:
    """Return ``text`` in the language that is spoken now."""
    return translations(language()).gettext(text) if text else text


def ngettext(one: str, many: str, count: int) -> str:
    """Return the form that is right for ``count``."""
    return translations(language()).ngettext(one, many, count)


def languages() -> frozenset[str]:
    """Return what is spoken here."""
    return frozenset({SOURCE, *(entry for entry in os.listdir(LOCALE) if catalog(entry).exists())})


def catalog(name: str) -> Path:
    """Return where the texts of a language are."""
    return LOCALE / name / "LC_MESSAGES" / "gpuhub.po"


@lru_cache(512)
def negotiated(accept_language: str) -> str:
    """Return the language spoken here that ``Accept-Language`` likes best (RFC 9110, 12.5.4)."""
    wished: list[tuple[float, str]] = []
    for entry in accept_language.split(","):
        tag, _, weight = entry.partition(";")
        try:
            liked = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        wished.append((liked, tag.strip().split("-")[0].lower()))
    wished.sort(key=lambda wish: -wish[0])
    known = languages()
    return next((name for liked, name in wished if liked > 0 and name in known), SOURCE)


@cache
def translations(name: str) -> NullTranslations:
    """Return the texts of a language."""
    if name == SOURCE:
        return NullTranslations()
    # Here: the launcher imports this too, and never says a word.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    with open(catalog(name), encoding="utf-8") as file:
        write_mo(compiled, read_po(file, locale=name))
    compiled.seek(0)
    return GNUTranslations(compiled)
