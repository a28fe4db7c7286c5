"""Everything that the hub's pages and a start say can be said in another language, and is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from gpuspawner import language
from gpuspawner.language import Sentence, listen_to, spoken
from gpuspawner.refusals import Refusal
from tests.unit.pages import texts
from tests.unit.pages.texts import Bypasses

OTHER_LANGUAGES = sorted(language.languages() - {language.SOURCE})
PLACEHOLDER = re.compile(r"\{\w+\}|%\(\w+\)s|<[^>]+>")
SEPARATES = ("{one}; {more}", "{step} ({time}).")
"""Texts without a word of their own."""


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    listen_to("en")


@pytest.mark.parametrize("path", texts.PYTHON, ids=lambda path: path.name)
def test_no_text_of_a_start_is_put_together_from_pieces(path: Path) -> None:
    list(texts.in_python(path.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        'self.say(10, f"Starting {name}.")',
        'raise Refusal("Starting " + name, reason="x")',
        'raise Refusal("It failed.", hint="Ask {}".format(name), reason="x")',
        'Trouble("It failed." if sure else f"{name} failed", "", "x")',
    ],
)
def test_a_text_put_together_from_pieces_is_found(line: str) -> None:
    with pytest.raises(Bypasses):
        list(texts.in_python(line))


@pytest.mark.parametrize("path", texts.TEMPLATES, ids=lambda path: path.name)
def test_no_word_of_a_page_stands_beside_gettext(path: Path) -> None:
    assert texts.beside_gettext(path.read_text()) == []


def test_a_word_beside_gettext_is_found() -> None:
    assert texts.beside_gettext('<p>{% trans %}Yes{% endtrans %} No</p><i title="Hint"></i>') == [
        "No",
        "Hint",
    ]


@pytest.mark.parametrize("path", texts.SCRIPTS, ids=lambda path: path.name)
def test_a_script_of_a_page_has_no_sentence_of_its_own(path: Path) -> None:
    assert texts.sentences_in_script(path) == []


def test_there_is_korean() -> None:
    assert "ko" in OTHER_LANGUAGES


@pytest.mark.parametrize("name", OTHER_LANGUAGES)
def test_a_catalog_has_every_text_and_no_other(name: str) -> None:
    with open(language.catalog(name), encoding="utf-8") as file:
        entries = [entry for entry in read_po(file, locale=name) if entry.id]
    known, wanted = {str(entry.id) for entry in entries}, texts.all_texts()
    assert known == wanted, f"write them into {language.catalog(name)}"
    for entry in entries:
        assert entry.string, entry.id
        assert not entry.fuzzy, entry.id
        assert sorted(PLACEHOLDER.findall(str(entry.id))) == sorted(PLACEHOLDER.findall(str(entry.string)))
        assert str(entry.id) in SEPARATES or entry.string != entry.id


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-GB,en;q=0.9,ko;q=0.8", "en"),
        ("fr-FR,fr;q=0.9,ko;q=0.5", "ko"),
        ("ko;q=0, en", "en"),
        ("KO", "ko"),
        ("../../etc/passwd", "en"),
        ("ko;q=much,,;;,", "en"),
        ("", "en"),
    ],
)
def test_the_browser_says_which_language(header: str, name: str) -> None:
    assert language.negotiated(header) == name


def test_a_sentence_is_said_with_its_values_in_each_language() -> None:
    sentence = Sentence("{what} could not be started.", what="JupyterLab")
    assert sentence == "JupyterLab could not be started."
    listen_to("ko")
    assert spoken(sentence) == "JupyterLab을(를) 시작하지 못했습니다."
    assert spoken("An operator's own {words}") == "An operator's own {words}"


def test_values_among_a_sentence_are_said_too_and_never_read_as_a_text() -> None:
    listen_to("ko")
    offer = Sentence("On offer: {listed}.", listed="{name}")
    said = spoken(Sentence("There is no environment {name}. {offer}", name="'{offer}'", offer=offer))
    assert said == "환경 '{offer}'이(가) 없습니다. 선택 가능: {name}."


def test_a_refusal_speaks_to_who_asked_and_keeps_the_log_in_english() -> None:
    listen_to("ko")
    refusal = Refusal("Your home folder is full.", hint="Try again.", reason="x", details="<df>")
    assert str(refusal) == "홈 폴더가 가득 찼습니다. 다시 시도하세요."
    assert "<summary>자세히</summary>" in refusal.jupyterhub_html_message
    assert "&lt;df&gt;" in refusal.jupyterhub_html_message
    assert "Your home folder is full." in refusal.log_message
