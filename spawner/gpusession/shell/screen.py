"""How lines reach a terminal, a pipe or a script: labels, tables, one live line.

Promises: colours and live lines on a terminal only; nothing is wider than the terminal where a
table or a live line would break; in a pipe nothing is cut.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

LABEL_WIDTH = 9
STYLES = {
    "GPU": "1",
    "warning": "33",
    "ends": "33",
    "note": "33",
    "error": "31",
    "hint": "2",
    "free": "2",
    "idle": "2",
}


class Screen:
    """Prints to ``out`` what was asked for and to ``err`` what accompanies it."""

    def __init__(self, out: TextIO, err: TextIO, env: Mapping[str, str], *, as_json: bool = False) -> None:
        self.out, self.err, self.as_json = out, err, as_json
        self._colours = "NO_COLOR" not in env and env.get("TERM") != "dumb"
        self._live = False

    @classmethod
    def here(cls, *, as_json: bool = False) -> Screen:
        return cls(sys.stdout, sys.stderr, os.environ, as_json=as_json)

    # --- what was asked for

    def labelled(self, lines: Sequence[tuple[str, str]]) -> None:
        last = ""
        for label, text in lines:
            shown = label if label != last else ""
            last = label
            head = self._styled(self.out, f"{shown:<{LABEL_WIDTH}}", STYLES.get(label))
            print(f"{head} {text}", file=self.out)
        self.out.flush()

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], flexible: int) -> None:
        """``flexible``: the column that gives way where the terminal is too narrow."""
        widths = [max(wide(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
        if self.out.isatty():
            room = columns() - sum(widths) - 2 * (len(widths) - 1)
            if room < 0:
                widths[flexible] = max(8, widths[flexible] + room)
        for number, row in enumerate([heads, *rows]):
            cells = [padded(cut(cell, width), width) for cell, width in zip(row, widths, strict=True)]
            line = "  ".join(cells).rstrip()
            print(self._styled(self.out, line, "2" if number == 0 else None), file=self.out)
        self.out.flush()

    def data(self, value: Any) -> None:
        """One JSON document."""
        print(json.dumps(value, indent=2, ensure_ascii=False), file=self.out, flush=True)

    def say(self, text: str) -> None:
        """A result in one sentence; with --json it goes beside the document."""
        self.clear()
        print(text, file=self.err if self.as_json else self.out, flush=True)

    # --- what accompanies it

    def live(self, text: str) -> None:
        """Show one line that replaces the one before; only where somebody looks."""
        if self.err.isatty():
            line = cut(text, columns() - 1)
            self.err.write(f"\r\x1b[K{self._styled(self.err, line, '2')}")
            self.err.flush()
            self._live = True

    def clear(self) -> None:
        if self._live:
            self.err.write("\r\x1b[K")
            self.err.flush()
            self._live = False

    def note(self, text: str) -> None:
        self.clear()
        print(self._styled(self.err, f"gpu: {text}", STYLES["warning"]), file=self.err, flush=True)

    def error(self, message: str, hint: str = "") -> None:
        self.clear()
        print(self._styled(self.err, f"gpu: {message}", STYLES["error"]), file=self.err)
        if hint:
            print(f"     {hint}", file=self.err)
        self.err.flush()

    def _styled(self, stream: TextIO, text: str, style: str | None) -> str:
        if style is None or not self._colours or not stream.isatty():
            return text
        return f"\x1b[{style}m{text}\x1b[0m"


def columns() -> int:
    return shutil.get_terminal_size().columns


def wide(text: str) -> int:
    """How many columns a text takes: wide characters (Hangul, CJK) take two, combining ones none."""
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Shorten a text to ``width`` columns, with an ellipsis where something is missing."""
    text = "".join(char if char.isprintable() else " " for char in text)
    if wide(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += _width(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def padded(text: str, width: int) -> str:
    return text + " " * max(0, width - wide(text))
