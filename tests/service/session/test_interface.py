"""The session's REST interface and events, as browsers and scripts use them; who gets in and who does not."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from gpulease.models import MAX_BODY_BYTES
from tests.service.session.desk import Desk, eventually, server_with_broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Desk]:
    async with server_with_broker(gpus=1) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def raw(desk: Desk, method: str, path: str, **more: Any) -> tuple[int, Any]:
    async with desk.http.request(method, f"{desk.url}gpuhub/api/v1/{path}", **more) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


async def refused(desk: Desk, method: str, path: str, status: int, **more: Any) -> dict[str, Any]:
    body = await desk.api(method, path, expect=status, **more)
    assert set(body) == {"code", "message", "hint", "details"}, body
    return dict(body)


async def test_status_names_the_owner_the_pools_and_the_kernels(shared: Desk) -> None:
    notebook = await shared.open("status.ipynb")
    status = await shared.api("GET", "status")
    assert (status["user"], status["server"], status["broker"]) == ("ann", "", "ok")
    assert status["pools"][0]["simulated"] is True
    assert notebook.kernel in [kernel["id"] for kernel in status["kernels"]]


async def test_nobody_gets_in_without_signing_in(shared: Desk) -> None:
    status, body = await raw(shared, "GET", "status")
    assert status == 403
    assert body["code"] == "not-allowed"
    status, _ = await raw(shared, "PUT", "kernels/x/placement", json={"placement": "worker"})
    assert status == 403


async def test_a_foreign_token_is_refused(shared: Desk) -> None:
    status, _ = await raw(shared, "GET", "status", headers={"Authorization": "token forged"})
    assert status == 403


async def test_another_site_cannot_act_through_a_signed_in_browser(shared: Desk) -> None:
    async with shared.http.get(f"{shared.url}tree?token=the-browser-knows-this") as answer:
        cookies = {name: morsel.value for name, morsel in answer.cookies.items()}
    foreign = {"Origin": "https://evil.example", "Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    status, body = await raw(shared, "POST", "lease", json={}, headers=foreign)
    assert status in (403, 404)
    assert body["code"]
    assert shared.broker.leases == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"placement": "moon"}, "placement"),
        ({"placement": "worker", "colour": "blue"}, "colour"),
        ({}, "placement"),
        ({"placement": "worker", "pool": "NO SUCH!"}, "pool"),
    ],
)
async def test_a_body_that_does_not_fit_is_named(shared: Desk, body: dict[str, Any], field: str) -> None:
    notebook = await shared.open("bad.ipynb")
    said = await refused(shared, "PUT", f"kernels/{notebook.kernel}/placement", 400, json=body)
    assert said["code"] == "bad-request"
    assert field in said["message"]


async def test_what_is_not_json_is_refused(shared: Desk) -> None:
    said = await refused(shared, "POST", "lease", 400, data=b"\xff{")
    assert said["code"] == "bad-request"


async def test_an_oversized_body_is_refused(shared: Desk) -> None:
    said = await refused(shared, "POST", "lease", 413, data=b" " * (MAX_BODY_BYTES + 1))
    assert said["code"] == "too-large"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "kernels/no-such"),
        ("GET", "nowhere"),
        ("DELETE", "snapshots/no-such"),
        ("DELETE", "kernels/no-such/move"),
        ("DELETE", "lease"),
        ("POST", "lease/keep"),
    ],
)
async def test_what_is_not_there_is_404(shared: Desk, method: str, path: str) -> None:
    assert (await refused(shared, method, path, 404))["code"] == "not-found"


async def test_an_unknown_pool_is_refused_as_the_broker_says(shared: Desk) -> None:
    assert (await refused(shared, "POST", "lease", 400, json={"pool": "h900"}))["code"] == "unknown-pool"
    assert (await refused(shared, "POST", "lease", 403, json={"gpus": 1000}))["code"] == "limit-reached"
    assert (await refused(shared, "POST", "lease", 400, json={"gpus": 0}))["code"] == "invalid-option"


async def test_the_private_routes_do_not_exist_for_browsers(shared: Desk) -> None:
    await refused(shared, "POST", "commands", 404)
    await refused(shared, "GET", "history", 404)
    await refused(shared, "POST", "hosted", 404, json={})


async def test_a_wish_is_answered_at_once_and_can_be_cancelled(shared: Desk) -> None:
    blocker = await shared.broker.ask("bob")
    notebook = await shared.open("wait.ipynb")
    path = f"kernels/{notebook.kernel}"
    wished = await shared.api("PUT", f"{path}/placement", json={"placement": "worker"}, expect=202)
    assert wished["move"]["step"] == "waiting"

    async def queued() -> bool:
        return await shared.lease_state() == "queued"

    await eventually(queued, "the queue")
    cancelled = await shared.api("DELETE", f"{path}/move", expect=202)
    assert cancelled["placement"] == "server"
    settled = await notebook.settled()
    assert settled["move"]["step"] == "cancelled"

    async def gone() -> bool:
        return await shared.lease_state() is None

    await eventually(gone, "the request's end")
    await shared.broker.finish(blocker.id)


async def test_snapshots_are_made_listed_restored_and_deleted(shared: Desk) -> None:
    notebook = await shared.open("saved.ipynb")
    await notebook.run("x = [1]; y = x; f = open('saved.ipynb')")
    path = f"kernels/{notebook.kernel}"
    said = await refused(shared, "POST", f"{path}/snapshots", 409, json={"left": "refuse"})
    assert said["code"] == "left-needs-consent"
    assert "f" in [one["name"] for one in said["details"]["verdicts"] if one["verdict"] == "left"]
    made = await shared.api("POST", f"{path}/snapshots", json={}, expect=201)
    assert made["notebook"] == "saved.ipynb"
    listed = await shared.api("GET", "snapshots")
    assert made["id"] in [one["id"] for one in listed["snapshots"]]
    await notebook.run("x = y = None")
    body = {"snapshot": made["id"], "names": ["x", "y"]}
    restored = await shared.api("POST", f"{path}/restore", json=body)
    assert {one["name"]: one["verdict"] for one in restored["verdicts"]}["x"] == "kept"
    assert await notebook.run("print(x is y, x)") == "True [1]\n"
    await shared.api("DELETE", f"snapshots/{made['id']}", expect=204)
    await refused(shared, "POST", f"{path}/restore", 404, json=body)


async def test_a_damaged_snapshot_is_refused_as_unusable(shared: Desk) -> None:
    notebook = await shared.open("damaged.ipynb")
    await notebook.run("x = 1")
    made = await shared.api("POST", f"kernels/{notebook.kernel}/snapshots", json={}, expect=201)
    manifest = shared.home / ".local/share/gpuhub/snapshots" / made["id"] / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    body = {"snapshot": made["id"]}
    said = await refused(shared, "POST", f"kernels/{notebook.kernel}/restore", 422, json=body)
    assert said["code"] == "snapshot-unusable"


async def test_events_begin_with_the_status_and_go_on_with_changes(shared: Desk) -> None:
    headers = {"Authorization": "token the-browser-knows-this"}
    async with shared.http.get(f"{shared.url}gpuhub/api/v1/events", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        lines = stream.content
        assert (await lines.readline()).decode() == "event: status\n"
        await shared.api("POST", "lease", json={}, expect=202)
        seen = b""
        async with asyncio.timeout(20):
            while b'"state":"active"' not in seen:
                seen += await lines.readline()
    await shared.api("DELETE", "lease", expect=202)


async def test_looking_is_not_activity(shared: Desk) -> None:
    before = await shared.api("GET", "activity")
    await asyncio.sleep(0.1)
    await shared.api("GET", "status")
    assert (await shared.api("GET", "activity"))["last_activity"] == before["last_activity"]


async def test_a_terminal_with_something_running_is_activity(shared: Desk) -> None:
    terminal = await shared.call("POST", "api/terminals")
    url = f"{shared.url}terminals/websocket/{terminal['name']}?token=the-browser-knows-this"
    async with shared.http.ws_connect(url) as ws:
        assert (await shared.api("GET", "activity"))["busy_terminals"] == 0
        await ws.send_json(["stdin", "sleep 30; exit\n"])

        async def busy() -> bool:
            return (await shared.api("GET", "activity"))["busy_terminals"] == 1

        await eventually(busy, "the busy terminal")
        await ws.send_json(["stdin", "\x03"])
    await shared.call("DELETE", f"api/terminals/{terminal['name']}")


async def test_a_terminal_of_the_server_finds_gpu_and_its_socket_and_no_gpu(shared: Desk) -> None:
    terminal = await shared.call("POST", "api/terminals")
    url = f"{shared.url}terminals/websocket/{terminal['name']}?token=the-browser-knows-this"
    script = "gpu queue; echo sock=$GPUHUB_SOCKET cuda=[$CUDA_VISIBLE_DEVICES]; env | grep -c SSH\n"
    heard = ""
    async with shared.http.ws_connect(url) as ws, asyncio.timeout(30):
        await ws.send_json(["stdin", script])
        while "cuda=[]" not in heard:
            kind, *rest = await ws.receive_json()
            heard += rest[0] if kind == "stdout" else ""
    assert "simulated GPU" in heard
    assert f"sock={shared.socket}" in heard
    await shared.call("DELETE", f"api/terminals/{terminal['name']}")


async def test_what_the_server_proxies_finds_gpu_and_its_socket_too(shared: Desk) -> None:
    """VS Code is such a program, and hands its environment on to its terminals."""
    async with shared.http.get(f"{shared.url}files/?token=the-browser-knows-this") as answer:
        assert answer.status == 200
    assert shared.process is not None
    family = psutil.Process(shared.process.pid).children(recursive=True)
    (proxied,) = [one for one in family if "http.server" in one.cmdline()]
    env = proxied.environ()
    assert env["GPUHUB_SOCKET"] == str(shared.socket)
    assert shutil.which("gpu", path=env["PATH"])
    assert env["CUDA_VISIBLE_DEVICES"] == ""


async def test_the_private_socket_is_its_owners_alone(shared: Desk) -> None:
    mode = shared.socket.stat()
    assert stat.S_ISSOCK(mode.st_mode)
    assert stat.S_IMODE(mode.st_mode) == 0o600
    assert stat.S_IMODE(shared.socket.parent.stat().st_mode) == 0o700


@pytest.mark.root
async def test_another_account_is_turned_away_even_where_the_files_would_let_it_in(shared: Desk) -> None:
    for path in (shared.folder, shared.run):
        path.chmod(0o755)
    shared.socket.chmod(0o666)
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'GET /gpuhub/api/v1/status HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
        "print(len(s.recv(100)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(shared.socket), stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    shared.socket.chmod(0o600)
    for path in (shared.folder, shared.run):
        path.chmod(0o700)
    assert out == b"0\n" or b"ConnectionResetError" in err or b"BrokenPipe" in err, (out, err)


async def test_the_private_socket_speaks_the_same_interface_without_a_token(shared: Desk) -> None:
    def ask() -> Any:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(shared.socket))
        with connection.sock:
            connection.request("GET", "/gpuhub/api/v1/status", headers={"Connection": "close"})
            return json.loads(connection.getresponse().read())

    there = await asyncio.to_thread(ask)
    assert there["user"] == "ann"
    assert (await shared.gpu("status", "--json")).data["user"] == "ann"


async def test_gpu_says_where_it_must_be_run(shared: Desk) -> None:
    ran = await shared.gpu("status", env={"GPUHUB_SOCKET": ""})
    assert ran.code == 5
    assert "does not belong to a gpuhub server" in ran.err
    ran = await shared.gpu("status", "--json", env={"GPUHUB_SOCKET": "/nowhere"})
    assert ran.code == 5
    assert ran.data["error"]["code"] == "unavailable"


async def test_history_lists_what_one_had(shared: Desk) -> None:
    assert (await shared.gpu("run", "true")).code == 0

    async def over() -> bool:
        return await shared.lease_state() is None

    await eventually(over, "the release")
    shown = await shared.gpu("history", "-n", "1")
    assert "released" in shown.text
    listed = await shared.gpu("history", "--json")
    assert listed.data["leases"][0]["reason"] == "released"


async def test_a_broker_that_is_away_is_said_and_comes_back_by_itself(shared: Desk) -> None:
    await shared.broker.go_away()

    async def unreachable() -> bool:
        return (await shared.api("GET", "status"))["broker"] == "unreachable"

    await eventually(unreachable, "the loss")
    assert "does not answer" in (await shared.gpu()).text
    await shared.broker.go_away(False)

    async def reachable() -> bool:
        return (await shared.api("GET", "status"))["broker"] == "ok"

    await eventually(reachable, "the return")
