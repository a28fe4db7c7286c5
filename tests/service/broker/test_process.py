"""The broker's process: what it says when it cannot run, and the lines that it logs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuhub.up.readable import Line, read_line

LOGGING = """
import logging, structlog
from gpuhub.api import logs
logs.configure()
logging.getLogger("gpuhub.broker").info("lease %s was emptied", "7f3c")
structlog.get_logger("gpuhub.api").warning("late", lease="7f3c", seconds=3)
try:
    {}["key"]
except KeyError:
    structlog.get_logger("gpuhub.api").exception("internal error", path="/x")
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)


def settings(folder: Path, **changes: Any) -> str:
    file = folder / "broker.json"
    known = {
        "port": 1,
        "hub_api_url": "http://127.0.0.1:1/hub/api",
        "hub_api_token": "a-secret-token",
        "database_url": f"sqlite+aiosqlite:///{folder}/gpuhub.sqlite",
        "local": {
            "gpus": "sim:1",
            "launcher_socket": str(folder / "launcher.sock"),
            "account_mode": "shared",
            "homes": str(folder / "homes"),
            "prefix": sys.prefix,
        },
    }
    file.write_text(json.dumps(known | changes))
    return str(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": "many"}, "port"),
        ({"colour": "violet"}, "colour: there is no such setting"),
        ({"policy_file": "/no/such/file"}, "No such file"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line_and_exit_code_2(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    done = run("-m", "gpuhub.api", "--settings", settings(tmp_path, **changes))
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert (said["level"], words in said["why"]) == ("error", True), said
    assert "a-secret-token" not in done.stdout + done.stderr


def test_an_address_in_use_is_said_and_ends_the_process(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = run("-m", "gpuhub.api", "--settings", settings(tmp_path, port=other.getsockname()[1]))
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], "in use" in last["why"]) == ("the broker cannot run", True)
    assert "Traceback" not in done.stdout + done.stderr


def test_its_lines_are_json_with_fixed_keys_and_read_well() -> None:
    lines = run("-c", LOGGING).stdout.splitlines()
    for line in lines:
        assert {"timestamp", "level", "logger", "event"} <= set(json.loads(line))
    assert [read_line(line) for line in lines[:2]] == [
        Line("info", "lease 7f3c was emptied"),
        Line("warning", "late  lease=7f3c seconds=3"),
    ]
    last = read_line(lines[2])
    assert last.level == "error"
    assert last.text.startswith("internal error  path=/x\nTraceback")
    assert last.text.endswith("KeyError: 'key'")


def test_it_prints_the_document_that_types_are_made_from() -> None:
    done = run("-m", "gpuhub.api", "--openapi")
    shapes = json.loads(done.stdout)["components"]["schemas"]
    assert {"Lease", "Me", "ErrorBody", "Event", "Status", "KernelStatus", "Verdict"} <= set(shapes)
    named = json.dumps(shapes)
    references = {part.split('"')[0] for part in named.split("#/components/schemas/")[1:]}
    assert references <= set(shapes)
    # What is sent is complete; what is asked for may be short.
    assert set(shapes["Lease"]["required"]) == set(shapes["Lease"]["properties"])
    assert "required" not in shapes["LeaseRequest"]
