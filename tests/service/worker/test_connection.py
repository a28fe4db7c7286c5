"""Who gets into a worker, and what he may ask for once inside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gpulease import errors
from gpulease.models import Link
from gpusession.worker.link import WorkerConnection, connect, make_key
from gpusession.worker.protocol import ALGORITHMS, MAX_LINE_BYTES
from gpusession.worker.sockets import bound, connected
from tests.service.worker.worker_process import (
    RunningWorker,
    all_of,
    free_port,
    read_until,
    running_worker,
    until,
)


@pytest.fixture
async def raw(worker: RunningWorker) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An SSH client that asks for whatever it likes, with the right key."""
    connection = await raw_client(worker)
    yield connection
    connection.abort()
    await connection.wait_closed()


async def raw_client(worker: RunningWorker, **options: Any) -> asyncssh.SSHClientConnection:
    path = worker.link.address.removeprefix("unix:")
    return await asyncssh.connect(
        **{
            "sock": await connected(Path(path)),
            "config": None,
            "known_hosts": ([asyncssh.import_public_key(worker.host.public)], [], []),
            "username": "anybody",
            "client_keys": [asyncssh.import_private_key(worker.key.private)],
            "agent_path": None,
            **options,
        }
    )


# --- addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_worker_is_reached_over_tcp_as_over_its_socket(host: str) -> None:
    async with running_worker(listen=f"tcp:{host}:0") as worker:
        assert worker.link.address.startswith(f"tcp:{host}:")
        link = await worker.connect()
        program = await link.run(["echo", "hello"], env=worker.env, cwd="/")
        assert await all_of(program) == (b"hello\n", b"", 0)


async def test_it_says_where_it_listens_only_once_it_does(worker: RunningWorker) -> None:
    said = json.loads((worker.folder / "ready.json").read_text())
    assert said == {"address": f"unix:{worker.folder}/ssh"}
    mode = (worker.folder / "ssh").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & 0o777 == 0o600


async def test_a_folder_with_a_long_path_is_no_hindrance() -> None:
    root = Path(tempfile.mkdtemp(prefix="gw-"))
    worker = None
    try:
        folder = root / ("long" * 30)
        folder.mkdir()
        worker = RunningWorker(folder)
        await worker.start()
        link = await worker.connect()
        kernel = await link.start_kernel(worker.command(SOCKETS))
        reader, writer = await connect_to(kernel.channels["shell"])
        assert await reader.read(5) == b"shell"
        writer.close()
        await writer.wait_closed()
        assert await all_of(await link.run(["echo", "hi"], env=worker.env, cwd="/")) == (b"hi\n", b"", 0)
    finally:
        if worker is not None:
            await worker.close()
        shutil.rmtree(root)


SOCKETS = """
import json, socket, sys, threading
info = json.load(open(sys.argv[1]))
def serve(name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{info['ip']}-{info[name + '_port']}")
    listener.listen()
    while True:
        peer, _ = listener.accept()
        peer.sendall(name.encode())
        peer.close()
for name in ("shell", "iopub", "stdin", "control", "hb"):
    threading.Thread(target=serve, args=(name,)).start()
"""
"""In a kernel's place: says its name on each channel."""


async def connect_to(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a forwarded socket, as ZeroMQ would: again until the far end listens."""
    for _ in range(200):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("ipc://"))
        await asyncio.sleep(0.05)
        if not reader.at_eof():
            return reader, writer
        writer.close()
        await writer.wait_closed()
    raise AssertionError(f"{address} leads nowhere")


@pytest.mark.parametrize("address", ["unix:/no/such/socket", "tcp:127.0.0.1:1", "nonsense", "tcp:host"])
async def test_an_address_where_nobody_is_counts_as_a_lost_link(tmp_path: Path, address: str) -> None:
    with pytest.raises(errors.LinkLost) as lost:
        await connect(Link(address=address, host_key=make_key().public), make_key(), runtime=tmp_path)
    assert lost.value.message.endswith(".")
    assert os.listdir(tmp_path) == []


async def test_a_worker_that_takes_the_connection_and_says_nothing_counts_as_lost(tmp_path: Path) -> None:
    silent = bound(tmp_path / "silent")
    silent.listen()
    address = Link(address=f"unix:{tmp_path}/silent", host_key=make_key().public)
    with silent, pytest.raises(errors.LinkLost, match="does not answer"):
        await connect(address, make_key(), runtime=tmp_path, timeout_seconds=0.3)


# --- keys


async def test_another_key_is_refused(worker: RunningWorker) -> None:
    with pytest.raises(errors.LinkLost, match="does not know this server's key"):
        await worker.connect(make_key())


async def test_another_host_key_is_not_talked_to(worker: RunningWorker) -> None:
    wrong = Link(address=worker.link.address, host_key=make_key().public)
    with pytest.raises(errors.LinkLost, match="Something else than the granted worker"):
        await worker.connect(link=wrong)


async def test_a_key_that_was_exchanged_counts_from_the_next_connection(worker: RunningWorker) -> None:
    first = await worker.connect()
    new = make_key()
    worker.authorize(new)
    assert not first.lost.done()
    with pytest.raises(errors.LinkLost):
        await worker.connect()
    second = await worker.connect(new)
    await asyncio.wait_for(first.lost, 5)
    assert not second.lost.done()


@pytest.mark.parametrize("content", ["", "nonsense", "ssh-ed25519 AAAA", "\0" * 10])
async def test_without_a_readable_key_nobody_comes_in(worker: RunningWorker, content: str) -> None:
    (worker.folder / "authorized_key").write_text(content)
    with pytest.raises(errors.LinkLost):
        await worker.connect()
    (worker.folder / "authorized_key").unlink()
    with pytest.raises(errors.LinkLost):
        await worker.connect()
    worker.authorize(worker.key)
    assert not (await worker.connect()).lost.done()


async def test_a_link_in_place_of_the_key_file_is_not_followed(worker: RunningWorker) -> None:
    (worker.folder / "elsewhere").write_text(worker.key.public)
    (worker.folder / "authorized_key").unlink()
    (worker.folder / "authorized_key").symlink_to(worker.folder / "elsewhere")
    with pytest.raises(errors.LinkLost):
        await worker.connect()


async def test_a_new_connection_replaces_the_old_one(worker: RunningWorker) -> None:
    first = await worker.connect()
    program = await first.run(["sleep", "60"], env=worker.env, cwd="/")
    second = await worker.connect()
    await asyncio.wait_for(first.lost, 5)
    assert await asyncio.wait_for(program.exited, 5) == -1000
    assert await all_of(await second.run(["echo", "me"], env=worker.env, cwd="/")) == (b"me\n", b"", 0)


async def test_a_stranger_does_not_replace_anybody(worker: RunningWorker) -> None:
    link = await worker.connect()
    with pytest.raises(errors.LinkLost):
        await worker.connect(make_key())
    assert not link.lost.done()
    assert await all_of(await link.run(["true"], env=worker.env, cwd="/")) == (b"", b"", 0)


@pytest.mark.parametrize(
    "options",
    [
        {"client_keys": None, "password": "gpuhub", "preferred_auth": "password"},
        {"client_keys": None, "preferred_auth": "keyboard-interactive"},
        {"client_keys": None, "preferred_auth": "hostbased"},
        {"client_keys": None},
    ],
    ids=["password", "keyboard", "host", "nothing"],
)
async def test_nothing_but_a_key_lets_anybody_in(worker: RunningWorker, options: dict[str, Any]) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await raw_client(worker, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
        {"encryption_algs": ["aes128-ctr", "aes256-cbc"]},
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
    ],
)
async def test_no_other_algorithm_is_spoken(worker: RunningWorker, options: dict[str, Any]) -> None:
    with pytest.raises(asyncssh.DisconnectError):
        await raw_client(worker, **options)


async def test_the_cipher_is_the_one_that_was_chosen(raw: asyncssh.SSHClientConnection) -> None:
    for way in ("send_cipher", "recv_cipher"):
        assert raw.get_extra_info(way) == ALGORITHMS["encryption_algs"][0]


# --- what is refused inside


@pytest.mark.parametrize("command", ["sh", "talk now", "attach c1", "attach ../x", "scp -t /tmp", "", "\n"])
async def test_no_command_of_ones_own_is_run(raw: asyncssh.SSHClientConnection, command: str) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_process(command)


async def test_no_shell(raw: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_process()


async def test_no_sftp(raw: asyncssh.SSHClientConnection) -> None:
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.SFTPError)):
        await raw.start_sftp_client()


@pytest.mark.parametrize("name", ["sftp", "netconf", "talk"])
async def test_no_subsystem(raw: asyncssh.SSHClientConnection, name: str) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_process(subsystem=name)


async def test_no_terminal_of_ssh(raw: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_process("talk", term_type="xterm", request_pty="force")


async def test_no_x11(raw: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_process("talk", x11_forwarding=True, x11_display="localhost:0")


async def test_no_agent(worker: RunningWorker) -> None:
    await worker.connect()
    connection = await raw_client(worker, agent_forwarding=True)
    try:
        talk = await connection.create_process("talk", encoding=None)
        await talk.stdout.readline()
        order = {"id": 1, "op": "run", "argv": ["env"], "env": {}, "cwd": "/"}
        talk.stdin.write(json.dumps(order).encode() + b"\n")
        target = json.loads(await talk.stdout.readline())["ok"]["target"]
        program = await connection.create_process(f"attach {target}", encoding=None)
        shown = await asyncio.wait_for(program.stdout.read(), 5)
        assert b"GPUHUB_LEASE" in shown
        assert b"SSH_AUTH_SOCK" not in shown
    finally:
        connection.abort()
        await connection.wait_closed()


async def test_no_listening_for_others(raw: asyncssh.SSHClientConnection, tmp_path: Path) -> None:
    for host in ("", "127.0.0.1", "0.0.0.0"):
        with pytest.raises(asyncssh.ChannelListenError):
            await raw.forward_remote_port(host, 0, "127.0.0.1", 22)
    with pytest.raises(asyncssh.ChannelListenError):
        await raw.forward_remote_path(str(tmp_path / "s"), "/tmp/x")
    assert not (tmp_path / "s").exists()


async def test_no_network_devices(raw: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_tun(asyncssh.SSHTunTapSession)
    with pytest.raises(asyncssh.ChannelOpenError):
        await raw.create_tap(asyncssh.SSHTunTapSession)


async def test_only_loopback_ports_of_the_worker_are_reached(raw: asyncssh.SSHClientConnection) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"tensorboard")
        writer.close()

    port = free_port()
    server = await asyncio.start_server(greet, "127.0.0.1", port)
    async with server:
        reader, writer = await raw.open_connection("127.0.0.1", port)
        assert await reader.read() == b"tensorboard"
        writer.close()
        for host in ("0.0.0.0", "127.0.0.2", "169.254.169.254", "10.0.0.1", "example.org", "", "localhost."):
            with pytest.raises(asyncssh.ChannelOpenError):
                await raw.open_connection(host, port)


async def test_a_port_of_the_worker_appears_as_a_socket_here(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    code = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
listener.accept()[0].sendall(b"board")
"""
    program = await link.run([sys.executable, "-c", code], env=worker.env, cwd="/")
    port = int(await read_until(program, b"\n"))
    path = await link.forward_port(port)
    reader, writer = await asyncio.open_unix_connection(path)
    assert await reader.read(5) == b"board"
    writer.close()
    await writer.wait_closed()


async def test_only_sockets_of_the_workers_own_folder_are_reached(
    worker: RunningWorker, raw: asyncssh.SSHClientConnection
) -> None:
    runtime = worker.folder / "run"
    outside = bound(worker.folder / "outside")
    inside = bound(runtime / "inside")
    outside.listen()
    inside.listen()
    (runtime / "file").write_text("no socket")
    (runtime / "link").symlink_to(worker.folder / "outside")
    (runtime / "up").symlink_to(worker.folder)
    (runtime / "same").symlink_to(runtime / "inside")
    with outside, inside:
        _, writer = await raw.open_unix_connection(str(runtime / "inside"))
        writer.close()
        for path in (
            str(worker.folder / "outside"),
            f"{runtime}/../outside",
            f"{runtime}/./inside",
            f"{runtime}//inside",
            f"{runtime}/link",
            f"{runtime}/same",
            f"{runtime}/up/outside",
            f"{runtime}/up/run/inside",
            f"{runtime}/file",
            f"{runtime}/nothing",
            f"{runtime}",
            f"{runtime}/",
            f"{runtime}x/inside",
            "inside",
            "",
            "/",
            f"{runtime}/inside\0",
            f"{runtime}/" + "x" * 5000,
            str(worker.folder / "ssh"),
            "/run/dbus/system_bus_socket",
        ):
            with pytest.raises(asyncssh.ChannelOpenError):
                await raw.open_unix_connection(path)


# --- the conversation


@pytest.fixture
async def talk(raw: asyncssh.SSHClientConnection) -> asyncssh.SSHClientProcess[bytes]:
    process = await raw.create_process("talk", encoding=None)
    assert json.loads(await process.stdout.readline()) == {"event": "hello", "kernels": []}
    return process


async def answer_to(talk: asyncssh.SSHClientProcess[bytes], line: bytes) -> dict[str, Any]:
    talk.stdin.write(line + b"\n")
    return dict(json.loads(await asyncio.wait_for(talk.stdout.readline(), 5)))


@pytest.mark.parametrize(
    "content",
    [
        {"op": "unknown"},
        {"op": "run"},
        {"op": "run", "argv": [], "env": {}, "cwd": "/"},
        {"op": "run", "argv": "sh", "env": {}, "cwd": "/"},
        {"op": "run", "argv": ["sh"], "env": [], "cwd": "/"},
        {"op": "run", "argv": ["sh"], "env": {"A=B": "c"}, "cwd": "/"},
        {"op": "run", "argv": ["s\u0000h"], "env": {}, "cwd": "/"},
        {"op": "run", "argv": ["sh"], "env": {}, "cwd": "/", "uid": 0},
        {"op": "run", "argv": ["sh"], "env": {}, "cwd": "/", "terminal": {"rows": 0}},
        {"op": "run", "argv": ["sh"], "env": {}, "cwd": "/", "terminal": {"kind": "x\ny"}},
        {"op": "start-kernel", "argv": ["sh"], "env": {}, "cwd": "/", "kernel": "../../x", "key": "00"},
        {"op": "start-kernel", "argv": ["sh"], "env": {}, "cwd": "/", "kernel": "k", "key": "no hex"},
        {"op": "signal", "target": "1", "number": 9},
        {"op": "signal", "target": "k1", "number": -1},
        {"op": "signal", "target": "c1", "number": 9},
        {"op": "kill", "target": "k1; rm"},
        {"op": "kill", "target": "k99"},
        {"op": "adopt-kernel", "target": "k99"},
        {"op": "resize", "target": "c1", "size": {"columns": 70000, "rows": 1}},
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_with_a_sentence(
    talk: asyncssh.SSHClientProcess[bytes], content: dict[str, Any]
) -> None:
    answer = await answer_to(talk, json.dumps({"id": 7, **content}).encode())
    assert answer["id"] == 7
    assert answer["error"]["code"] in ("bad-request", "invalid-option", "not-found")
    assert answer["error"]["message"].endswith(".")
    assert (await answer_to(talk, b'{"id": 8, "op": "ping"}')) == {"id": 8, "ok": {}}


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"id": 1e999, "op": "ping"}']
)
async def test_what_is_no_order_at_all_does_nothing(
    talk: asyncssh.SSHClientProcess[bytes], line: bytes
) -> None:
    talk.stdin.write(line + b"\n")
    assert (await answer_to(talk, b'{"id": 8, "op": "ping"}')) == {"id": 8, "ok": {}}


async def test_an_order_without_end_ends_the_connection_and_not_the_worker(
    worker: RunningWorker, raw: asyncssh.SSHClientConnection, talk: asyncssh.SSHClientProcess[bytes]
) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        for _ in range(2 * MAX_LINE_BYTES // 65536):
            talk.stdin.write(b"x" * 65536)
            await talk.stdin.drain()
    await asyncio.wait_for(raw.wait_closed(), 5)
    program = await (await worker.connect()).run(["true"], env=worker.env, cwd="/")
    assert await all_of(program) == (b"", b"", 0)


async def test_garbage_before_any_login_does_not_hurt(worker: RunningWorker) -> None:
    path = worker.link.address.removeprefix("unix:")
    for content in (b"\0" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 4096):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(content)
    assert not (await worker.connect()).lost.done()


# --- the near side


async def test_what_the_link_opened_here_is_gone_when_it_is_closed(
    worker: RunningWorker, link: WorkerConnection
) -> None:
    await link.start_kernel(worker.command("import time; time.sleep(60)"))
    (folder,) = (worker.folder / "here").iterdir()
    assert len(list(folder.iterdir())) == 5
    assert folder.stat().st_mode & 0o777 == 0o700
    await link.close()
    await link.close()
    assert link.lost.done()
    assert not folder.exists()
    with pytest.raises(errors.LinkLost):
        await link.run(["true"], env=worker.env, cwd="/")
    with pytest.raises(errors.LinkLost):
        await link.start_kernel(worker.command("pass"))


async def test_a_runtime_folder_with_a_long_path_is_no_hindrance_here(worker: RunningWorker) -> None:
    long = worker.folder / ("deep" * 25)
    long.mkdir()
    link = await connect(worker.link, worker.key, runtime=long)
    worker.links.append(link)
    kernel = await link.start_kernel(worker.command("import time; time.sleep(60)"))
    assert all(len(os.fsencode(path)) <= 107 + len("ipc://") for path in kernel.channels.values())


async def test_keys_are_ed25519_in_the_forms_of_the_contract() -> None:
    from gpulease.models import LinkKey

    one, two = make_key(), make_key()
    assert LinkKey(public_key=one.public).public_key == one.public
    assert one.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert one.private != two.private


async def test_a_worker_without_its_host_key_says_why_it_ends(tmp_path: Path) -> None:
    worker = RunningWorker(tmp_path)
    worker.host = type(worker.host)(private="nonsense", public=worker.host.public)
    with pytest.raises(AssertionError, match="cannot start"):
        await worker.start()
    await until(lambda: worker.process is not None and worker.process.poll() == 1, "it ends with status 1")
