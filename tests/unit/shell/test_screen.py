"""Colours and live lines on a terminal only; nothing wider than it; Hangul counts double."""

from __future__ import annotations

import io

from gpusession.shell import screen
from gpusession.shell.screen import Screen
from gpusession.shell.watching import sparkline


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_text_and_no_live_line() -> None:
    out, err = io.StringIO(), io.StringIO()
    plain = Screen(out, err, {})
    plain.labelled([("GPU", "none"), ("hint", "do")])
    plain.live("2nd in line")
    plain.error("No.", "Wait.")
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert out.getvalue() == "GPU       none\nhint      do\n"
    assert err.getvalue() == "gpu: No.\n     Wait.\n"


def test_a_terminal_gets_colours_unless_it_asks_for_none() -> None:
    for env, coloured in (({}, True), ({"NO_COLOR": ""}, False), ({"TERM": "dumb"}, False)):
        out = Terminal()
        Screen(out, Terminal(), env).labelled([("warning", "idle")])
        assert ("\x1b[33m" in out.getvalue()) is coloured


def test_a_repeated_label_is_said_once() -> None:
    out = io.StringIO()
    Screen(out, io.StringIO(), {}).labelled([("pool", "a"), ("pool", "b")])
    assert out.getvalue() == "pool      a\n          b\n"


def test_a_live_line_is_cleared_before_anything_else_is_said() -> None:
    err = Terminal()
    live = Screen(io.StringIO(), err, {"NO_COLOR": "1"})
    live.live("waiting")
    live.note("ready")
    assert err.getvalue() == "\r\x1b[Kwaiting\r\x1b[Kgpu: ready\n"


def test_texts_are_cut_by_columns_not_characters() -> None:
    assert screen.cut("abcdef", 4) == "abc…"
    assert screen.cut("한국어 노트북", 7) == "한국어…"
    assert screen.wide("한국어") == 6
    assert screen.cut("a\nb\x1b[31m", 20) == "a b [31m"


def test_a_table_in_a_pipe_is_not_cut() -> None:
    out = io.StringIO()
    Screen(out, io.StringIO(), {}).table(["a", "b"], [["x" * 300, "y"]], flexible=0)
    assert "x" * 300 in out.getvalue()


def test_a_table_on_a_terminal_fits_it() -> None:
    out = Terminal()
    Screen(out, io.StringIO(), {"NO_COLOR": "1"}).table(["a", "b"], [["x" * 300, "y"]], flexible=0)
    assert max(len(line) for line in out.getvalue().splitlines()) <= screen.columns()


def test_a_sparkline_has_one_bar_for_each_sample() -> None:
    assert sparkline([0, 50, 100, 250, -3]) == "▁▅██▁"
