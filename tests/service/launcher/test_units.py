"""Real processes under a real launcher: started as ordered, and gone when they should be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpulease.errors import BadRequest, Conflict, NotAllowed, NotFound, TooLarge, Unavailable
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import UnitSeen
from tests.launching import (
    RunningLauncher,
    exists,
    interrupt,
    parent_of,
    place,
    running_launcher,
    status_of,
    until,
)


@pytest.fixture
async def launcher() -> AsyncIterator[RunningLauncher]:
    async with running_launcher() as running:
        yield running


async def hidden_children(launcher: RunningLauncher, unit_id: str) -> list[int]:
    async def look() -> list[int]:
        unit = await launcher.seen(unit_id)
        found = [process.pid for process in unit.processes if process.name == "sleep"]
        return found if len(found) == 3 else []

    return await until(look, "the hidden children run")


async def test_a_worker_gets_its_folder_its_files_and_a_clean_process(launcher: RunningLauncher) -> None:
    order = launcher.order("w-1", files={"host_key": "private"}, env={"GPUHUB_LEASE": "7f3c"}, label="7f3c")
    await launcher.client.start(order)
    unit = await launcher.ready("w-1")

    folder = place(unit)
    assert (folder / "host_key").read_text() == "private"
    assert (folder / "host_key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert unit.ready["environment"]["GPUHUB_LEASE"] == "7f3c"
    assert unit.ready["environment"]["GPUHUB_UNIT"] == "w-1"
    assert set(unit.ready["environment"]).isdisjoint({"PYTEST_CURRENT_TEST", "SSH_AUTH_SOCK", "VIRTUAL_ENV"})
    assert unit.ready["umask"] == 0o077
    assert unit.label == "7f3c"
    assert "started with" in unit.log_tail
    [main] = [process for process in unit.processes if process.main]
    assert main.pid == unit.pid
    assert os.getsid(unit.pid) == unit.pid
    open_files = {os.readlink(f"/proc/{unit.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{unit.pid}/fd")}
    assert open_files == {"/dev/null", str(launcher.folder / "state" / "w-1" / "log")}


async def test_signals_that_the_launcher_inherited_as_ignored_work_in_a_unit(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with running_launcher() as launcher:
            await launcher.client.start(launcher.order("w-1"))
            unit = await launcher.ready("w-1")
            status = status_of(unit.pid)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGHUP, before[1])
    # 32 and 33 are the C library's own: below make they are ignored, and nobody can send them.
    ignored = int(status.partition("SigIgn:\t")[2].split()[0], 16) & 0x7FFFFFFF
    blocked = int(status.partition("SigBlk:\t")[2].split()[0], 16)
    # Python itself ignores SIGPIPE and SIGXFSZ in each of its processes.
    assert ignored & ~(1 << (signal.SIGPIPE - 1)) & ~(1 << (signal.SIGXFSZ - 1)) == 0
    assert blocked == 0


async def test_starting_twice_starts_once(launcher: RunningLauncher) -> None:
    first, second = await asyncio.gather(
        launcher.client.start(launcher.order("w-1")), launcher.client.start(launcher.order("w-1"))
    )
    again = await launcher.client.start(launcher.order("w-1"))
    assert {unit.pid for unit in (first, second, again)} - {None} == {again.pid}
    assert len(await launcher.client.list()) == 1


async def test_nothing_of_a_worker_is_left_however_it_hides(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "hide-children"))
    await launcher.ready("w-1")
    hidden = await hidden_children(launcher, "w-1")
    unit = await launcher.seen("w-1")
    keeper = parent_of(unit.pid)

    await launcher.client.stop("w-1", 10)
    exited = await launcher.exited("w-1")

    assert exited.exit_status == 0
    assert (place(exited) / "saved").read_text() == "saved in time"
    assert [pid for pid in (*hidden, unit.pid, keeper) if exists(pid)] == []


async def test_a_worker_that_will_not_stop_is_made_to(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "stubborn", "hide-children"))
    await launcher.ready("w-1")
    hidden = await hidden_children(launcher, "w-1")

    await launcher.client.stop("w-1", 0.3)
    stopping = await launcher.seen("w-1")
    exited = await launcher.exited("w-1")

    assert stopping.stopping
    assert exited.exit_status == -signal.SIGKILL
    assert [pid for pid in hidden if exists(pid)] == []


async def test_a_second_stop_can_shorten_the_grace_but_not_lengthen_it(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "stubborn"))
    await launcher.ready("w-1")
    await launcher.client.stop("w-1", 3600)
    await launcher.client.stop("w-1", 0.2)
    await launcher.client.stop("w-1", 3600)
    assert (await launcher.exited("w-1")).exit_status == -signal.SIGKILL


async def test_what_a_dead_worker_leaves_is_ended_too(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "hide-children"))
    unit = await launcher.ready("w-1")
    hidden = await hidden_children(launcher, "w-1")
    interrupt(unit.pid)
    exited = await launcher.exited("w-1")
    assert exited.exit_status == -signal.SIGKILL
    assert [pid for pid in hidden if exists(pid)] == []


async def test_killing_the_keeper_hides_nothing(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "hide-children"))
    unit = await launcher.ready("w-1")
    hidden = await hidden_children(launcher, "w-1")
    interrupt(parent_of(unit.pid))

    await launcher.client.stop("w-1", 10)
    await launcher.exited("w-1")
    assert [pid for pid in (*hidden, unit.pid) if exists(pid)] == []


async def test_a_worker_that_cannot_start_says_so(launcher: RunningLauncher) -> None:
    (launcher.prefix / "bin" / "python").unlink()
    await launcher.client.start(launcher.order("w-1"))
    unit = await launcher.exited("w-1")
    assert unit.exit_status == 126
    assert "cannot start" in unit.log_tail


async def test_an_exit_is_seen_until_it_is_forgotten(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "die"))
    exited = await launcher.exited("w-1")
    assert exited.exit_status == 7
    assert (await launcher.client.start(launcher.order("w-1"))).phase == "exited"

    await launcher.client.forget("w-1")
    assert await launcher.client.list() == []
    assert not place(exited).exists()
    assert (await launcher.client.start(launcher.order("w-1"))).phase == "running"


async def test_a_running_unit_is_not_forgotten(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1"))
    with pytest.raises(Conflict):
        await launcher.client.forget("w-1")


async def test_stopping_and_forgetting_what_does_not_exist_is_fine(launcher: RunningLauncher) -> None:
    await launcher.client.stop("w-none", 1)
    await launcher.client.forget("w-none")
    with pytest.raises(NotFound):
        await launcher.client.write_file("w-none", "authorized_key", "x")


async def test_a_file_is_replaced_in_one_step(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", files={"authorized_key": "old"}))
    await launcher.client.write_file("w-1", "authorized_key", "new")
    folder = place(await launcher.seen("w-1"))
    assert (folder / "authorized_key").read_text() == "new"
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".new")) == []


async def test_a_log_stays_within_its_bound() -> None:
    async with running_launcher(log_bytes=20_000) as launcher:
        await launcher.client.start(launcher.order("w-1", "talk"))
        await launcher.ready("w-1")
        log = launcher.folder / "state" / "w-1" / "log"
        await until(lambda: log.stat().st_size <= 20_000, "the log is cut")
        assert log.read_text().endswith("line 199999\n")


# --- a launcher that goes away -----------------------------------------------------------------


async def test_a_launcher_that_was_killed_finds_its_units_again(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "hide-children", devices=("SIM-0",)))
    before = await launcher.ready("w-1")
    hidden = await hidden_children(launcher, "w-1")
    launcher.kill()
    assert exists(before.pid)

    await launcher.start()
    after = await launcher.ready("w-1")
    assert (after.pid, after.started_at, after.devices) == (before.pid, before.started_at, ("SIM-0",))
    assert {process.pid for process in after.processes} == {
        process.pid for process in before.processes
    } | set(hidden)

    await launcher.client.stop("w-1", 10)
    exited = await launcher.exited("w-1")
    assert exited.exit_status == 0
    assert [pid for pid in hidden if exists(pid)] == []


async def test_a_unit_that_ended_while_nobody_looked_is_seen_with_its_status(
    launcher: RunningLauncher,
) -> None:
    await launcher.client.start(launcher.order("w-1"))
    unit = await launcher.ready("w-1")
    launcher.kill()
    os.kill(unit.pid, signal.SIGTERM)
    await until(lambda: not exists(unit.pid), "the worker has ended")
    await launcher.start()
    assert (await launcher.exited("w-1")).exit_status == 0


async def test_a_stop_that_was_begun_is_finished_by_the_next_launcher(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1", "stubborn"))
    unit = await launcher.ready("w-1")
    await launcher.client.stop("w-1", 1)
    launcher.kill()
    assert exists(unit.pid)
    await launcher.start()
    await launcher.exited("w-1")
    assert not exists(unit.pid)


async def test_units_outlive_a_launcher_that_ends_cleanly(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1"))
    unit = await launcher.ready("w-1")
    await launcher.client.shutdown()
    assert launcher.process.wait(10) == 0
    assert exists(unit.pid)
    assert not launcher.socket.exists()
    await launcher.start()
    assert (await launcher.seen("w-1")).pid == unit.pid


async def test_a_client_waits_for_a_launcher_that_is_being_restarted(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1"))
    launcher.kill()
    waiting = asyncio.create_task(launcher.client.list())
    await launcher.start()
    assert [unit.id for unit in await waiting] == ["w-1"]


async def test_a_launcher_that_stays_away_is_named(launcher: RunningLauncher) -> None:
    launcher.kill()
    with pytest.raises(Unavailable, match="not running"):
        await LauncherClient(launcher.socket, patience_seconds=0.2).list()


async def test_a_second_launcher_for_the_same_place_refuses_to_start(launcher: RunningLauncher) -> None:
    assert launcher.start_another() == 3
    assert "another-launcher-runs" in launcher.log()
    assert await launcher.client.list() == []


async def test_a_number_that_now_belongs_to_another_process_is_not_touched(launcher: RunningLauncher) -> None:
    await launcher.client.start(launcher.order("w-1"))
    unit = await launcher.ready("w-1")
    launcher.kill()
    interrupt(unit.pid)
    bystander = await asyncio.create_subprocess_exec("sleep", "3600", start_new_session=True)
    try:
        # As if the kernel had given the worker's number to somebody else.
        path = launcher.folder / "state" / "w-1" / "keeper.json"
        path.write_text(f'{{"keeper": [{bystander.pid}, 1], "main": [{bystander.pid}, 1]}}')
        await launcher.start()
        await launcher.exited("w-1")
        assert bystander.returncode is None
        assert exists(bystander.pid)
    finally:
        bystander.kill()
        await bystander.wait()


# --- what is refused ---------------------------------------------------------------------------


async def raw(launcher: RunningLauncher, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(launcher.socket))
    writer.write(line)
    await writer.drain()
    answer = await reader.readline()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"[]\n",
        b"null\n",
        b'{"op": "run", "command": "id"}\n',
        b'{"op": "stop", "id": "../../etc"}\n',
        b'{"op": "stop", "id": "w-1", "signal": 9}\n',
        b'{"op": "stop", "id": "w-1", "grace_seconds": -1}\n',
        b'{"op": "stop", "id": "w-1", "grace_seconds": 1e300}\n',
        b'{"op": "write_file", "id": "w-1", "name": "../../x", "text": ""}\n',
        b'{"op": "write_file", "id": "w-1", "name": ".bashrc", "text": ""}\n',
        b"[" * 100_000 + b"\n",
        b'{"op": "stop", "id": "w-\xff"}\n',
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_and_logged(
    launcher: RunningLauncher, line: bytes
) -> None:
    assert b'"code": "bad-request"' in await raw(launcher, line)
    assert '"outcome": "bad-request"' in launcher.log()
    assert await launcher.client.list() == []


async def test_a_request_without_end_is_refused(launcher: RunningLauncher) -> None:
    reader, writer = await asyncio.open_unix_connection(str(launcher.socket))
    writer.write(b"x" * (3 * 1024 * 1024))
    answer = json.loads(await reader.readline())
    writer.close()
    assert answer["error"]["code"] == TooLarge.code


async def test_a_prefix_that_is_not_registered_is_refused(launcher: RunningLauncher) -> None:
    for prefix in ("/usr", f"{launcher.prefix}/../prefix", f"{launcher.prefix}/"):
        with pytest.raises(NotAllowed):
            await launcher.client.start(launcher.order("w-1", prefix=prefix))
    assert await launcher.client.list() == []


async def test_a_prefix_may_be_registered_while_the_launcher_runs() -> None:
    async with running_launcher() as launcher:
        listed = launcher.folder / "environments.yaml"
        launcher.kill()
        launcher.settings |= {"prefixes": [], "prefixes_file": str(listed)}
        await launcher.start()
        with pytest.raises(NotAllowed):
            await launcher.client.start(launcher.order("w-1"))
        listed.write_text(f"environments:\n  - name: plain\n    prefix: {launcher.prefix}\n")
        assert (await launcher.client.start(launcher.order("w-1"))).phase == "running"
        listed.write_text("environments: []\n")
        with pytest.raises(NotAllowed):
            await launcher.client.start(launcher.order("w-2"))


async def test_an_unknown_gpu_is_refused_and_a_held_one_too(launcher: RunningLauncher) -> None:
    with pytest.raises(BadRequest):
        await launcher.client.start(launcher.order("w-1", devices=("GPU-unknown",)))
    await launcher.client.start(launcher.order("w-2", devices=("SIM-0",)))
    with pytest.raises(Conflict):
        await launcher.client.start(launcher.order("w-3", devices=("SIM-0",)))
    await launcher.client.stop("w-2", 0)
    await launcher.exited("w-2")
    assert (await launcher.client.start(launcher.order("w-3", devices=("SIM-0",)))).devices == ("SIM-0",)


async def test_requests_are_logged_without_secrets(launcher: RunningLauncher) -> None:
    order = launcher.order("w-1", files={"host_key": "very-private"}, env={"TOKEN": "very-secret"})
    await launcher.client.start(order)
    await launcher.client.authenticate("nobody-of-this-name", "very-hidden")
    log = launcher.log()
    assert '"op": "start"' in log
    assert '"op": "authenticate"' in log
    assert "very-" not in log
    kept = "".join(path.read_text() for path in (launcher.folder / "state").rglob("*.json"))
    assert "very-" not in kept


# --- ready.json is a stranger's word -------------------------------------------------------------


async def replaced_ready(launcher: RunningLauncher, make: object) -> UnitSeen:
    await launcher.client.start(launcher.order("w-1", "never-ready"))
    unit = await launcher.seen("w-1")
    make(place(unit) / "ready.json")
    return await launcher.seen("w-1")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/etc/hostname"),
        lambda path: path.symlink_to(path),
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.write_text("not json"),
        lambda path: path.write_text("[1, 2]"),
        lambda path: path.write_text("[" * 60_000),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text('{"address": "' + "x" * 1_000_000 + '"}'),
    ],
    ids=["link", "loop", "fifo", "folder", "text", "list", "deep", "bytes", "huge"],
)
async def test_a_ready_file_that_is_a_trap_is_no_ready_file(launcher: RunningLauncher, make: object) -> None:
    unit = await replaced_ready(launcher, make)
    assert unit.ready is None
    assert unit.phase == "running"


async def test_a_link_to_json_elsewhere_is_not_read(launcher: RunningLauncher) -> None:
    secret = launcher.folder / "secret.json"
    secret.write_text('{"token": "not yours"}')
    unit = await replaced_ready(launcher, lambda path: path.symlink_to(secret))
    assert unit.ready is None
