"""One readable log: every child's lines, with its name in front; the whole story in a file.

Broker and launcher write JSON lines, hub and proxy their own forms; people read one. The terminal
leaves out what nobody reads (each request that went well); ``logs/gpuhub.log`` keeps everything.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.text import Text

Level = Literal["debug", "info", "warning", "error"]
STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}
NAME_STYLES = {"hub": "blue", "broker": "green", "proxy": "magenta", "launcher": "cyan", "culler": "white"}
FILE_BYTES = 10 * 1024 * 1024
MAX_LINE = 4000

_JUPYTER = re.compile(r"^\[(?P<level>[DIWEC]) [\d-]+ [\d:.]+ (?P<who>[^\]]*)\] ?(?P<text>.*)$")
_PROXY = re.compile(r"^\S+ \[ConfigProxy\] (?P<level>info|warn|error|debug): (?P<text>.*)$")
_ACCESS = re.compile(r"^(?:[123]\d\d|404) (?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LETTERS: dict[str, Level] = {"D": "debug", "I": "info", "W": "warning", "E": "error", "C": "error"}
_QUIET = (
    "Checking routes",
    "200 POST /api/routes",
    "201 POST /api/routes",
    "200 GET /api/routes",
    "extra_handlers is deprecated",
    "Initialized API:",
    "pycurl",
    "Configuration specifies both admin_users and users in the admin role",
)
_HIDDEN = {"time", "timestamp", "ts", "at", "level", "event", "message", "msg", "logger", "exception"}


@dataclass(frozen=True)
class Line:
    """One line as people read it."""

    level: Level
    text: str
    quiet: bool = False
    """Kept in the file, left out on the terminal."""


def read_line(raw: str) -> Line:
    """Return ``raw`` in the form that people read."""
    text = _COLOUR.sub("", raw.rstrip())
    if text.startswith("{"):
        try:
            entry = json.loads(text)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            return _from_json(entry)
    text = text[:MAX_LINE]
    match = _JUPYTER.match(text)
    if match:
        level = _LETTERS[match["level"]]
        body = match["text"]
        return Line(level, body, quiet=level == "debug" or bool(_ACCESS.match(body)) or _is_quiet(body))
    match = _PROXY.match(text)
    if match:
        level = "warning" if match["level"] == "warn" else _level(match["level"])
        return Line(level, match["text"], quiet=level in ("debug", "info"))
    return Line("info", text, quiet=not text or _is_quiet(text))


def _from_json(entry: dict[str, Any]) -> Line:
    level = _level(str(entry.get("level", "info")))
    head = str(entry.get("event") or entry.get("message") or entry.get("msg") or "")
    rest = " ".join(f"{key}={_short(value)}" for key, value in entry.items() if key not in _HIDDEN)
    quiet = level == "debug" or head in ("request", "list", "asked")
    # A traceback is nothing without its lines.
    trace = str(entry.get("exception") or "").rstrip()[-MAX_LINE:]
    return Line(level, f"{head}  {rest}".strip() + (f"\n{trace}" if trace else ""), quiet=quiet)


def _level(name: str) -> Level:
    name = name.lower()
    if name.startswith("warn"):
        return "warning"
    if name in ("error", "critical", "exception", "fatal"):
        return "error"
    return "debug" if name in ("debug", "trace") else "info"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 300 else text[:299] + "…"


def _is_quiet(text: str) -> bool:
    return any(part in text for part in _QUIET)


class Log:
    """Writes to the terminal and to a file. Never raises: a full disk must not end the hub."""

    def __init__(
        self,
        file: Path,
        *,
        now: Callable[[], datetime],
        verbose: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._now, self._verbose = now, verbose
        self._path = file
        self.calm = False
        """While it starts (True), what went well stays in the file: the start-up text says the rest."""
        self._file: TextIO | None = None
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)

    def child(self, name: str, raw: str) -> None:
        """Take a line that a child wrote."""
        line = read_line(raw)
        self._write(name, line.level, line.text)
        if self._verbose or not (line.quiet or (self.calm and line.level == "info")):
            self._show(name, line.level, line.text)

    def say(self, text: str, level: Level = "info") -> None:
        """Say something of our own."""
        self._write("gpuhub", level, text)
        self._show("gpuhub", level, text)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _show(self, name: str, level: Level, text: str) -> None:
        line = Text(f"{self._now():%H:%M:%S} ", style="dim")
        line.append(f"{name:<9}", style=NAME_STYLES.get(name, "bold"))
        line.append(text, style=STYLES[level])
        try:
            self._console.print(line)
        except (OSError, ValueError):
            return

    def _write(self, name: str, level: Level, text: str) -> None:
        try:
            if self._file is None or self._file.tell() > FILE_BYTES:
                self._turn()
            assert self._file is not None
            self._file.write(
                f"{self._now().isoformat(timespec='milliseconds')} {level:<7} {name:<9} {text}\n"
            )
            self._file.flush()
        except OSError:
            return

    def _turn(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.replace(self._path.with_suffix(".1.log"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "a", encoding="utf-8", errors="replace")  # noqa: SIM115 (kept open)
