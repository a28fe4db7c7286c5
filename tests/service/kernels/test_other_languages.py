"""Kernels without our agent: they run, restart and crash as ever, and move as a fresh start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.kernels import echokernel
from tests.service.kernels.conftest import Server


def spec(server: Server, *options: str, language: str = "echo", open_ports: bool = False) -> dict[str, Any]:
    folder = server.folder / "kernels" / "echo"
    folder.mkdir(parents=True)
    argv = [sys.executable, str(Path(echokernel.__file__)), "-f", "{connection_file}", *options]
    body: dict[str, Any] = {"argv": argv, "display_name": "Echo", "language": language}
    if open_ports:
        body["metadata"] = {"gpuhub": {"open_ports": True}}
    (folder / "kernel.json").write_text(json.dumps(body))
    return {"kernel_name": "echo", "kernel_dirs": [str(folder.parent)]}


@pytest.mark.parametrize("language", ["echo", "python"])
async def test_it_moves_as_a_fresh_start_and_only_with_consent(server: Server, language: str) -> None:
    manager, reader = await server.open(**spec(server, language=language))
    assert (await reader.run("hello")).text == "1 hello\n"
    status = await server.flip(manager, "worker")
    assert (status.movable, status.placement, status.move.step) == ("fresh", "server", "refused")
    assert (await reader.run("still here")).text == "2 still here\n"
    status = await server.flip(manager, "worker", consent=True)
    assert (status.placement, status.move.step) == ("worker", "done")
    assert (await reader.run("anew")).text == "1 anew\n"
    status = await server.flip(manager, "server", consent=True)
    assert (await reader.run("back")).text == "1 back\n"


async def test_a_stream_of_requests_goes_through_its_move_each_answered_once(server: Server) -> None:
    manager, reader = await server.open(**spec(server))
    cells = [reader.send(f"c{n}") for n in range(50)]
    await server.flip(manager, "worker", consent=True)
    for number, cell in enumerate(cells):
        await reader.finish(cell)
        assert (cell.status, cell.text.split()[1]) == ("ok", f"c{number}")


async def test_it_restarts_and_shuts_down(server: Server) -> None:
    manager, reader = await server.open(**spec(server))
    await reader.run("one")
    await manager.restart_kernel()
    assert (await reader.run("two")).text == "1 two\n"
    await manager.shutdown_kernel()
    assert not server.session.kernels


async def test_its_crash_is_answered(server: Server) -> None:
    manager, reader = await server.open(**spec(server))
    crashing = reader.send("crash")
    await reader.finish(crashing, 10)
    assert crashing.errors == ["KernelDied"]
    assert not await manager.is_alive()


async def test_one_that_cannot_do_ipc_runs_over_tcp_and_says_that_it_cannot_move(server: Server) -> None:
    manager, reader = await server.open(**spec(server, "--tcp-only", open_ports=True))
    assert (await reader.run("hello")).text == "1 hello\n"
    await manager.restart_kernel()
    assert (await reader.run("again")).text == "1 again\n"
    status = await server.flip(manager, "worker", consent=True)
    assert (status.placement, status.move.step) == ("server", "refused")
    assert "beside the server only" in status.move.message
    assert not server.broker.leases
    assert (await reader.run("still")).text == "2 still\n"


async def test_one_that_cannot_do_ipc_is_refused_where_other_accounts_could_read_its_ports(
    server: Server,
) -> None:
    with pytest.raises(RuntimeError, match=r"every account of this machine could read.*open_ports"):
        await server.open(**spec(server, "--tcp-only"))
    assert not server.session.kernels


async def test_its_debugger_is_refused_with_a_sentence_where_it_would_answer_every_account(
    server: Server,
) -> None:
    _, reader = await server.open(**spec(server))
    client = reader.client
    content = {"type": "request", "seq": 7, "command": "initialize", "arguments": {}}
    message = client.session.msg("debug_request", content)
    client.control_channel.send(message)
    asked = await reader.finish(reader.cells[message["header"]["msg_id"]])
    assert (asked.replies[0]["success"], asked.replies[0]["request_seq"]) == (False, 7)
    assert "every account of this machine" in asked.replies[0]["message"]
    assert asked.states == ["busy", "idle"], "JupyterLab waits for both"
    assert (await reader.run("on")).text == "1 on\n"
