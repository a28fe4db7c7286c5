"""A debugger that nobody else can reach: its sockets, its folder, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpusession.kernels import debugadapter, debugging
from gpusession.kernels.debugsession import DebugSession
from tests.unit.kernels.messages import message


async def test_of_those_who_connect_only_this_process_itself_is_taken() -> None:
    code = (
        "import socket, subprocess, sys\n"
        "from gpusession.kernels import debugging\n"
        "made = socket.create_server\n"
        "strangers = []\n"
        "def create_server(address, **more):\n"
        "    listener = made(address, **more)\n"
        "    # Another process is there first.\n"
        "    strangers.append(subprocess.Popen([sys.executable, '-c',\n"
        "        'import socket, sys; s = socket.create_connection((\"127.0.0.1\", int(sys.argv[1])));'\n"
        "        'print(\"in\", flush=True); print(s.recv(9))', str(listener.getsockname()[1])],\n"
        "        stdout=subprocess.PIPE, text=True))\n"
        "    assert strangers[0].stdout.readline() == 'in\\n'\n"
        "    return listener\n"
        "socket.create_server = create_server\n"
        "taken = debugging.connect_pydevd()\n"
        "from _pydevd_bundle.pydevd_constants import get_global_debugger\n"
        "assert taken.getpeername() == get_global_debugger()._client_socket.getsockname()\n"
        "print(strangers[0].communicate()[0].strip())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "b''", (done.stdout, done.stderr)


def test_the_adapter_listens_nowhere_speaks_over_what_it_is_handed_and_ends_with_it() -> None:
    import debugpy

    folder = str(Path(debugpy.__file__).parent.parent)
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", str(debugadapter.__file__), str(theirs.fileno()), folder]
    adapter = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
    theirs.close()
    line, far = socket.socketpair()
    socket.send_fds(ours, [debugadapter.CLIENT], [far.fileno()])
    far.close()
    line.settimeout(30)
    order = json.dumps(
        {"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "test"}}
    )
    line.sendall(f"Content-Length: {len(order)}\r\n\r\n{order}".encode())
    heard = ""
    while '"initialize"' not in heard:
        heard += line.recv(4096).decode()
    assert listening(adapter.pid) == set()
    ours.close()
    assert adapter.wait(10) == 0
    line.close()


def listening(pid: int) -> set[str]:
    """The inodes of the process's sockets that listen on TCP."""
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        own.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[9])
    return found


def test_a_folder_that_is_not_there_is_made_for_this_account_alone(tmp_path: Path) -> None:
    folder = tmp_path / "ipykernel_1"
    debugging.make_own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    debugging.make_own_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ipykernel_1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(debugging.CannotDebug, match="belongs to somebody else"):
        debugging.make_own_folder(tmp_path / "ipykernel_1")


@pytest.mark.root
def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ipykernel_1"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(debugging.CannotDebug, match="belongs to somebody else"):
        debugging.make_own_folder(folder)


async def test_a_line_that_is_cut_answers_what_waits_and_says_that_debugging_ended() -> None:
    lost: list[bool] = []
    client = debugging.Client(logging.getLogger(), lambda event: None, lambda: lost.append(True))
    ends: list[socket.socket] = []
    await client.open(lambda theirs: ends.append(theirs.dup()))
    asked = asyncio.create_task(client.send_dap_request({"seq": 1, "command": "threads"}))
    await asyncio.sleep(0.05)
    ends[0].close()
    answer = await asyncio.wait_for(asked, 5)
    assert (answer["success"], answer["message"]) == (False, debugging.LOST)
    assert lost == [True]
    answer = await client.send_dap_request({"seq": 2, "command": "threads"})
    assert (answer["success"], answer["message"]) == (False, debugging.NOT_ON)


async def test_a_goodbye_is_no_loss() -> None:
    lost: list[bool] = []
    client = debugging.Client(logging.getLogger(), lambda event: None, lambda: lost.append(True))
    ends: list[socket.socket] = []
    await client.open(lambda theirs: ends.append(theirs.dup()))
    asked = asyncio.create_task(client.send_dap_request({"seq": 1, "command": "disconnect"}))
    await asyncio.sleep(0.05)
    said = json.dumps({"seq": 1, "type": "response", "command": "disconnect", "success": True})
    ends[0].sendall(f"Content-Length: {len(said)}\r\n\r\n{said}".encode())
    ends[0].close()
    assert (await asyncio.wait_for(asked, 5))["success"]
    client.disconnect_tcp_socket()
    await asyncio.sleep(0.05)
    assert not lost


# --- what the relay sees of it


def debug(kind: str, **content: Any) -> Any:
    return message(kind, **content)


def test_a_process_that_is_being_debugged_takes_that_along_when_it_ends() -> None:
    session = DebugSession(allowed=True)
    session.replied(debug("debug_reply", command="attach", success=True))
    assert session.die()
    assert not session.die()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("debug_reply", {"command": "disconnect", "success": True}),
        ("debug_event", {"event": "terminated"}),
    ],
)
def test_debugging_that_ended_before_is_not_ended_again(kind: str, content: dict[str, Any]) -> None:
    session = DebugSession(allowed=True)
    session.replied(debug("debug_reply", command="attach", success=True))
    session.replied(debug(kind, **content))
    session.published(debug(kind, **content))
    assert not session.die()


def test_where_it_may_not_be_started_only_the_question_about_it_passes() -> None:
    session = DebugSession(allowed=False)
    assert session.refusal(debug("debug_request", command="debugInfo", seq=1)) is None
    assert session.refusal(debug("interrupt_request")) is None
    refusal = session.refusal(debug("debug_request", command="initialize", seq=2))
    assert refusal is not None
    assert (refusal["success"], refusal["request_seq"]) == (False, 2)
    assert DebugSession(allowed=True).refusal(debug("debug_request", command="initialize", seq=2)) is None
