"""One readable log out of four manners of writing."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpuhub.up.readable import Line, Log, read_line


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            '{"time": "t", "level": "info", "event": "granted", "lease": "7f3c", "gpus": 1}',
            Line("info", "granted  lease=7f3c gpus=1"),
        ),
        ('{"level": "warning", "event": "late"}', Line("warning", "late")),
        ("[W 2026-11-24 15:04:42.123 JupyterHub app:12] slow", Line("warning", "slow")),
        (
            "[I 2026-11-24 15:04:42.123 JupyterHub log:192] 200 GET /hub/home (ann@::1) 3ms",
            Line("info", "200 GET /hub/home (ann@::1) 3ms", quiet=True),
        ),
        (
            "2026-11-24T15:34:54.461Z [ConfigProxy] \x1b[31merror\x1b[39m: 503 GET /user/ann",
            Line("error", "503 GET /user/ann"),
        ),
        (
            "2026-11-24T15:34:54.461Z [ConfigProxy] info: Adding route /",
            Line("info", "Adding route /", quiet=True),
        ),
        (
            '{"level": "error", "event": "internal error", "exception": "Traceback\\nKeyError: 1"}',
            Line("error", "internal error\nTraceback\nKeyError: 1"),
        ),
        (
            '{"level": "info", "event": "long", "text": "' + "x" * 5000 + '"}',
            Line("info", f"long  text={'x' * 299}…"),
        ),
        ("{not json", Line("info", "{not json")),
        ("plain words", Line("info", "plain words")),
    ],
)
def test_every_manner_of_line_is_read(raw: str, line: Line) -> None:
    assert read_line(raw) == line


def test_the_file_keeps_what_the_terminal_leaves_out(tmp_path: Path) -> None:
    terminal = io.StringIO()
    file = tmp_path / "logs" / "gpuhub.log"
    log = Log(file, now=lambda: datetime(2026, 11, 24, 12, 0, tzinfo=UTC), stream=terminal)
    log.child("hub", "[I 2026-11-24 15:04:42.123 JupyterHub log:192] 200 GET /hub/home 3ms\n")
    log.child("hub", "[W 2026-11-24 15:04:42.123 JupyterHub app:12] slow\n")
    log.close()
    assert terminal.getvalue() == "12:00:00 hub      slow\n"
    assert [line.split(maxsplit=2)[2] for line in file.read_text().splitlines()] == [
        "hub       200 GET /hub/home 3ms",
        "hub       slow",
    ]


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    log = Log(tmp_path / "logs" / "x.log", now=lambda: datetime.now(UTC), stream=io.StringIO())
    log.say("goes on")
    log.close()
