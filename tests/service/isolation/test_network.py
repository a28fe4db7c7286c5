"""What listens on this machine answers to its owner only: kernels, servers, broker, hub, proxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import psutil
import pytest

from tests.person import Tab, eventually
from tests.service.isolation.conftest import SECRET, Scene
from tests.service.session.test_on_a_hub import Typing

pytestmark = pytest.mark.root

LISTENS = """
import time, zmq
context = zmq.Context()
heard, sockets = [], {}
poller = zmq.Poller()
for port in ports:
    ears = context.socket(zmq.SUB)
    ears.linger = 0
    ears.subscribe(b"")
    if keys:
        ears.curve_serverkey = keys[0].encode()
        ears.curve_publickey, ears.curve_secretkey = zmq.curve_keypair()
    ears.connect(f"tcp://127.0.0.1:{port}")
    poller.register(ears, zmq.POLLIN)
    sockets[ears] = port
open(ready, "w").close() if ready else None
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    for ears, _ in poller.poll(200):
        heard.append(b"".join(ears.recv_multipart()).decode(errors="replace"))
context.destroy(0)
result = [one for one in heard if marker in one]
"""
ORDERS = """
import hashlib, hmac, json, time, uuid, zmq
context = zmq.Context()
answers = []
for port in ports:
    for key in (b"", b"key"):
        mouth = context.socket(zmq.DEALER)
        mouth.linger = 500
        mouth.connect(f"tcp://127.0.0.1:{port}")
        header = {"msg_id": uuid.uuid4().hex, "session": "eve", "username": "eve", "version": "5.3",
                  "msg_type": "execute_request", "date": "2026-01-01T00:00:00Z"}
        content = {"code": "treasure = 'taken'", "silent": False, "store_history": True,
                   "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        parts = [json.dumps(one).encode() for one in (header, {}, {}, content)]
        signed = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest().encode() if key else b""
        mouth.send_multipart([b"<IDS|MSG>", signed, *parts])
        if mouth.poll(300):
            answers.append(port)
        mouth.close()
context.destroy(0)
result = answers
"""


def connection_of(scene: Scene, kernel: str) -> dict[str, Any]:
    """The connection file of one of ann's kernels, read as root."""
    file = next(scene.runtime.rglob(f"kernel-{kernel}.json"))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


async def overheard(scene: Scene, speaker: Any, ports: list[int], **given: Any) -> list[str]:
    """What eve's notebook hears of the marker that ``speaker`` makes ann's kernels print."""
    given = {"marker": SECRET, "seconds": 2.5, "ready": "", "keys": [], **given}
    listening = asyncio.create_task(scene.run(scene.eve, "server", LISTENS, ports=ports, **given))
    while not listening.done():
        await speaker()
        await asyncio.sleep(0.2)
    heard: list[str] = await listening
    return heard


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_what_anns_notebooks_print_is_heard_on_no_port_without_her_keys(
    scene: Scene, where: str
) -> None:
    connection = connection_of(scene, scene.ann.notebooks[where][0])
    ports = scene.ports(scene.ann)
    assert connection["iopub_port"] in ports
    async with scene.at_work(scene.ann) as ann:
        tab = await Tab(ann, *scene.ann.notebooks[where]).connect()
        ann.tabs.append(tab)

        async def speak() -> None:
            await tab.run(f"print({SECRET!r})")

        assert await overheard(scene, speak, ports) == []
        # Who holds the keys hears it: the silence above was no mishap.
        keys = [connection["curve_publickey"]]
        assert await overheard(scene, speak, [connection["iopub_port"]], keys=keys) != []


WITH_A_MANAGER = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
end = manager.shutdown_kernel
"""
LIKE_VS_CODE = """
import subprocess, sys
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
file, _ = write_connection_file("plain.json")
stand_in = [sys.executable, "-m", "gpusession.kernels.standin", "-f", file]
command = [sys.executable, "-m", "gpusession.kernels.ipython", "-f", file]
program = subprocess.Popen([*stand_in, "--", *command])
client = BlockingKernelClient(connection_file=file)
client.load_connection_file()
client.start_channels()
client.wait_for_ready(timeout=60)
end = program.terminate
"""
"""A program that knows plain TCP only, and a kernel spec of ours."""


@pytest.mark.parametrize("start", [WITH_A_MANAGER, LIKE_VS_CODE], ids=["manager", "plain"])
async def test_a_kernel_that_a_program_in_anns_terminal_starts_is_not_overheard_either(
    scene: Scene, start: str
) -> None:
    home = scene.hub.data / "homes" / "ann"
    script = home / "alone.py"
    (home / "began").unlink(missing_ok=True)
    script.write_text(
        f"import time\n{start}\n"
        f"open({str(home / 'began')!r}, 'w').close()\n"
        "until = time.time() + 8\n"
        "heard = 0\n"
        "while time.time() < until:\n"
        f"    client.execute_interactive('print(\"{SECRET}\")', output_hook=lambda message: None)\n"
        "    heard += 1\n"
        "    time.sleep(0.2)\n"
        "client.stop_channels()\n"
        "end()\n"
        "print('heard', 'itself' if heard > 3 else 'nothing')\n"
    )
    before = scene.ports(scene.ann)
    async with scene.at_work(scene.ann) as ann:
        typing = await Typing.open(ann)
        working = asyncio.create_task(typing.run("python alone.py"))

        async def began() -> bool:
            assert not working.done(), working.result()
            return (home / "began").exists()

        await eventually(began, "the kernel", 40)
        ports = sorted(set(scene.ports(scene.ann)) - set(before))
        assert ports

        async def speak() -> None:
            await asyncio.sleep(0)

        assert await overheard(scene, speak, ports) == []
        assert "heard itself" in await working
        await typing.close()


START = """
import os
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
said = []
hook = lambda message: said.append(message["content"].get("text", ""))
client.execute_interactive(
    "import os; print(os.getppid(), os.environ['CUDA_VISIBLE_DEVICES'])", output_hook=hook, timeout=60
)
result = [os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], "".join(said).strip().rpartition("\\n")[2]]
"""
RUN = """
import nbformat, papermill
from nbclient import NotebookClient
cell = nbformat.v4.new_code_cell("import os; print('seen', os.environ['CUDA_VISIBLE_DEVICES'])")
book = nbformat.v4.new_notebook(cells=[cell])
book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
nbformat.write(book, "in.ipynb")
papermill.execute_notebook("in.ipynb", "out.ipynb", progress_bar=False)
NotebookClient(book).execute()
result = [
    "".join(output.text for output in one.cells[-1].outputs if output.name == "stdout").strip()
    for one in (nbformat.read("out.ipynb", 4), book)
]
"""


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_a_kernel_that_a_cell_of_anns_starts_runs_beside_it_and_is_not_overheard(
    scene: Scene, where: str
) -> None:
    before = scene.ports(scene.ann)
    pid, device, said = await scene.run(scene.ann, where, START)
    assert said == f"{pid} {device}".strip(), "a kernel of its own, on the GPU of its notebook"
    try:
        ports = sorted(set(scene.ports(scene.ann)) - set(before))
        assert len(ports) >= 5

        async def speak() -> None:
            code = f"print({SECRET!r})"
            told = f"said.clear(); client.execute_interactive({code!r}, output_hook=hook, timeout=30)\n"
            heard = await scene.run(scene.ann, where, told + "result = ''.join(said)")
            assert SECRET in heard

        assert await overheard(scene, speak, ports) == []
    finally:
        await scene.run(
            scene.ann, where, "client.stop_channels(); manager.shutdown_kernel(now=True); result = 1"
        )


@pytest.mark.parametrize("where", ["server", "worker"])
async def test_papermill_and_nbclient_in_a_cell_of_anns_run_on_what_the_cell_runs_on(
    scene: Scene, where: str
) -> None:
    device = await scene.run(scene.ann, where, "import os; result = os.environ['CUDA_VISIBLE_DEVICES']")
    assert await scene.run(scene.ann, where, RUN) == [f"seen {device}".strip()] * 2


async def test_an_unsigned_or_wrongly_signed_order_reaches_no_kernel_of_anns(scene: Scene) -> None:
    ports = scene.ports(scene.ann)
    assert await scene.run(scene.eve, "worker", ORDERS, ports=ports) == []
    assert await scene.run(scene.ann, "worker", "result = treasure") == f"{SECRET}-of-ann"


# --- servers -----------------------------------------------------------------------------------------


def server_url(scene: Scene) -> str:
    """Ann's Jupyter server, past the proxy."""
    url = psutil.Process(scene.ann.server_pid).environ()["JUPYTERHUB_SERVICE_URL"]
    assert int(url.rpartition(":")[2].partition("/")[0]) in scene.ports(scene.ann)
    return url


@pytest.mark.parametrize("whose", ["nobody", "eve", "eves-server"])
async def test_anns_server_answers_neither_nobody_nor_eve(scene: Scene, whose: str) -> None:
    tokens = {"nobody": "", "eve": scene.eve.token, "eves-server": scene.eve.server_token}
    headers = {"Authorization": f"token {tokens[whose]}"} if tokens[whose] else {}
    kernel = scene.ann.notebooks["worker"][0]
    direct = server_url(scene)
    tried = [
        *(("GET", path) for path in ("api/contents", "api/kernels", "api/sessions", "api/terminals")),
        *(("GET", path) for path in ("files/worker.ipynb", "lab", "metrics", "api/me")),
        *(
            ("GET", f"gpuhub/api/v1/{path}")
            for path in ("status", "snapshots", "events", "activity", "usage")
        ),
        *(("POST", path) for path in ("api/kernels", "api/terminals", "api/shutdown", "gpuhub/api/v1/lease")),
        ("PUT", f"gpuhub/api/v1/kernels/{kernel}/placement"),
        ("DELETE", f"api/kernels/{kernel}"),
        ("DELETE", "gpuhub/api/v1/lease"),
    ]
    async with aiohttp.ClientSession() as http:
        for base in (direct, f"{scene.hub.url}user/ann/"):
            answered = []
            for method, path in tried:
                async with http.request(
                    method, base + path, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status not in (302, 401, 403, 404) or SECRET in await answer.text():
                        answered.append((method, path, answer.status))
            assert answered == []
            for channel in (f"api/kernels/{kernel}/channels", "terminals/websocket/1"):
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await http.ws_connect(base + channel, headers=headers)
        own = {"Authorization": f"token {scene.ann.token}"}
        async with http.get(f"{direct}api/contents", headers=own) as answer:
            assert answer.status == 200


# --- broker, hub, proxy -------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["eve", "eves-server"])
async def test_eve_neither_sees_nor_changes_anns_lease(scene: Scene, whose: str) -> None:
    token = {"eve": scene.eve.token, "eves-server": scene.eve.server_token}[whose]
    lease = f"leases/{scene.ann.lease}"
    async with scene.at_work(scene.ann) as ann, aiohttp.ClientSession() as http:
        before = await ann.broker("GET", lease)

        async def ask(method: str, path: str, body: Any = None) -> int:
            headers = {"Authorization": f"token {token}"}
            async with http.request(method, scene.broker_url + path, headers=headers, json=body) as answer:
                assert "ann" not in await answer.text() or answer.status >= 400
                return answer.status

        key = {
            "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
        }
        for method, path, body in (
            ("GET", lease, None),
            ("GET", f"{lease}/usage", None),
            ("GET", f"{lease}/logs", None),
            ("DELETE", lease, None),
            ("POST", f"{lease}/keep", None),
            ("PUT", f"{lease}/cell", {"running": True}),
            ("PUT", f"{lease}/key", key),
            ("POST", f"{lease}/ack", {"kernels": [], "reason": "released"}),
        ):
            assert await ask(method, path, body) in (403, 404), (method, path)
        assert await ask("GET", "leases?everyone=true") == 403
        assert await ask("GET", "leases?ended=true") == 200
        assert await ask("GET", "events?everyone=true") == 403
        for path in ("users", "people", "policy", "logs", "users/ann/leases", "../../metrics"):
            assert await ask("GET", path) in (401, 403, 404, 405), path
        after = await ann.broker("GET", lease)
        assert (after["state"], after.get("keep")) == (before["state"], before.get("keep"))


async def test_without_a_token_broker_hub_and_proxy_tell_nothing(scene: Scene) -> None:
    hub = f"{scene.settings['hub_bind_url']}/hub/api/"
    proxy = scene.settings["proxy_api_url"] + "/api/routes"
    broker = scene.broker_url
    anns = scene.ann.lease
    tried = [hub + path for path in ("users", "users/ann", "services", "proxy", "user", "groups", "info")]
    tried += [broker + path for path in ("me", "leases", f"leases/{anns}", "events", "pools")]
    tried += [proxy, f"{proxy}/user/ann", broker.replace("api/v1/", "metrics")]
    async with aiohttp.ClientSession() as http:
        for token in ("", scene.eve.server_token):
            headers = {"Authorization": f"token {token}"} if token else {}
            for url in tried:
                own = token and (url.startswith(broker) or url.endswith("/user"))
                async with http.get(url, headers=headers) as answer:
                    text = await answer.text() if not url.endswith("events") or answer.status >= 400 else ""
                    assert answer.status in (401, 403, 404) or (own and answer.status == 200), url
                    assert scene.ann.token not in text
            async with http.post(f"{proxy}/user/ann", json={"target": "http://127.0.0.1:1"}) as answer:
                assert answer.status == 403


async def test_her_servers_token_does_what_a_server_needs_and_no_more(scene: Scene) -> None:
    headers = {"Authorization": f"token {scene.eve.server_token}"}
    hub = f"{scene.hub.url}hub/api/"
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(f"{hub}user") as answer:
            assert (await answer.json())["name"] == "eve"
        for method, path in (
            *(
                ("GET", path)
                for path in ("users", "users/ann", "groups", "services", "proxy", "users/ann/tokens")
            ),
            *(("POST", path) for path in ("users/eve/server", "users/eve/tokens", "users/mallory")),
            *(("POST", path) for path in ("users/ann/server", "users/ann/tokens", "users/ann/activity")),
            *(("DELETE", path) for path in ("users/ann", "users/ann/server", "users/eve/server")),
            ("PATCH", "users/eve"),
            ("POST", "shutdown"),
        ):
            async with http.request(method, hub + path, json={}) as answer:
                assert answer.status in (403, 404), (method, path, await answer.text())


async def test_anns_idempotency_key_is_worth_nothing_to_eve(scene: Scene) -> None:
    async with scene.at_work(scene.eve) as eve, scene.at_work(scene.ann) as ann:
        pool = (await eve.broker("GET", "pools"))["pools"][0]["name"]
        body = {"pool": pool, "gpus": 1, "server": "", "idempotency_key": "the-same-key-of-both"}
        assert (await ann.broker("POST", "leases", json=body))["id"] == scene.ann.lease
        assert (await eve.broker("POST", "leases", json=body))["id"] == scene.eve.lease


async def test_eves_stream_of_events_never_names_ann(scene: Scene) -> None:
    headers = {"Authorization": f"token {scene.eve.server_token}", "Last-Event-ID": "0"}
    heard = ""
    async with (
        scene.at_work(scene.ann) as ann,
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{scene.broker_url}events") as stream,
    ):
        assert stream.status == 200
        await ann.broker("PUT", f"leases/{scene.ann.lease}/cell", json={"running": True}, expect=204)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                async for line in stream.content:
                    heard += line.decode()
    assert scene.eve.lease in heard
    assert scene.ann.lease not in heard
    assert '"ann"' not in heard


def test_only_the_public_address_is_not_loopback(scene: Scene) -> None:
    everywhere = []
    for process in scene.processes():
        for one in process.net_connections("inet"):
            if one.status == "LISTEN" and one.laddr.ip not in ("127.0.0.1", "::1"):
                everywhere.append((process.name(), one.laddr))
    public = int(scene.hub.url.rpartition(":")[2].strip("/"))
    assert [one for _, one in everywhere if one.port != public] == [], everywhere
