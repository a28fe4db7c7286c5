"""Several people on one machine, for real: other Unix accounts, device files, passwords. Wants root.

Numbered accounts need no entry in the machine's list, so these tests change nothing on it; the
password test brings its own list of accounts in a mount namespace of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpulease.errors import NotAllowed
from gpuspawner.launcher.accounts import NUMBERED_FIRST
from gpuspawner.launcher.protocol import Account
from tests.launching import (
    RunningLauncher,
    exists,
    numbered,
    place,
    running_launcher,
    short_folder,
    status_of,
    until,
)

pytestmark = pytest.mark.root

ANN = NUMBERED_FIRST + 51
BOB = NUMBERED_FIRST + 52
PYTHON = os.path.realpath(sys.executable)


def as_account(uid: int, code: str, *arguments: str) -> str:
    """Run Python code as another account; return what it prints."""
    done = subprocess.run(
        [PYTHON, "-I", "-c", code, *arguments],
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return (done.stdout + done.stderr).strip()


def can_open(uid: int, path: Path | str, mode: str = "r") -> bool:
    return as_account(
        uid, "import sys; open(sys.argv[1], sys.argv[2]); print('opened')", str(path), mode
    ) == ("opened")


@pytest.fixture
async def launcher() -> AsyncIterator[RunningLauncher]:
    with short_folder(0o755) as devices:
        for name in ("gpu0", "gpu1", "shared"):
            (devices / name).write_text(name)
            (devices / name).chmod(0o666)
        async with running_launcher(
            devices={"GPU-0": [str(devices / "gpu0")], "GPU-1": [str(devices / "gpu1")]},
            shared_devices=[str(devices / "shared")],
            restrict_devices=True,
            accounts={"mode": "numbered"},
        ) as running:
            running.devices = devices
            yield running


def order(launcher: RunningLauncher, unit_id: str, uid: int, *args: str, **fields: object) -> object:
    home = launcher.folder / f"home-{uid}"
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, uid, uid)
    return launcher.order(
        unit_id, *args, account=numbered(uid, home), env={"HOME": str(home)}, **{"files": {}, **fields}
    )


# --- accounts ------------------------------------------------------------------------------------


async def test_a_worker_is_its_owner_and_nobody_else(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN))
    unit = await launcher.ready("w-1")
    assert unit.ready["uid"] == ANN
    assert unit.ready["groups"] == [ANN]
    assert unit.ready["cwd"] == str(launcher.folder / f"home-{ANN}")
    assert f"Uid:\t{ANN}\t{ANN}\t{ANN}\t{ANN}" in status_of(unit.pid)
    assert f"Gid:\t{ANN}\t{ANN}\t{ANN}\t{ANN}" in status_of(unit.pid)


async def test_nobody_reads_another_persons_unit(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, files={"host_key": "private"}))
    folder = place(await launcher.ready("w-1"))
    assert can_open(ANN, folder / "host_key")
    assert not can_open(BOB, folder / "host_key")
    assert not can_open(BOB, folder / "ready.json")
    for hidden in ("state/w-1/unit.json", "state/w-1/log", "settings.json"):
        assert not can_open(BOB, launcher.folder / hidden)
        assert not can_open(ANN, launcher.folder / hidden)


async def test_a_worker_cannot_signal_its_keeper_or_the_launcher(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN))
    await launcher.ready("w-1")
    said = as_account(ANN, "import os, sys; os.kill(int(sys.argv[1]), 9)", str(launcher.process.pid))
    assert "PermissionError" in said


async def test_children_of_another_account_are_gone_too(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, "hide-children", "stubborn"))
    await launcher.ready("w-1")

    async def hidden() -> list[int]:
        unit = await launcher.seen("w-1")
        found = [process.pid for process in unit.processes if process.name == "sleep"]
        return found if len(found) == 3 else []

    pids = await until(hidden, "the hidden children run")
    await launcher.client.stop("w-1", 0.2)
    await launcher.exited("w-1")
    assert [pid for pid in pids if exists(pid)] == []


@pytest.mark.parametrize(
    ("uid", "gid"),
    [(0, 0), (1000, 1000), (ANN, 0), (ANN, BOB), (65534, 65534), (NUMBERED_FIRST - 1, NUMBERED_FIRST - 1)],
)
async def test_an_account_outside_the_range_is_refused(launcher: RunningLauncher, uid: int, gid: int) -> None:
    account = Account(uid=uid, gid=gid, name="ann", home="/tmp")
    with pytest.raises(NotAllowed):
        await launcher.client.start(launcher.order("w-1", account=account))
    with pytest.raises(NotAllowed):
        await launcher.client.start(launcher.order("w-1", account=None))
    assert await launcher.client.list() == []


async def test_root_is_not_shared_unless_an_operator_said_so() -> None:
    async with running_launcher(accounts={"mode": "shared"}) as launcher:
        with pytest.raises(NotAllowed, match="root"):
            await launcher.client.start(launcher.order("w-1"))


async def test_a_home_is_made_for_a_newcomer_and_is_his_alone(launcher: RunningLauncher) -> None:
    homes = launcher.folder / "homes"
    launcher.kill()
    launcher.settings["accounts"] = {"mode": "numbered", "homes": str(homes)}
    await launcher.start()
    account = numbered(ANN, homes / "ann")
    await launcher.client.start(launcher.order("w-1", account=account, env={}))
    unit = await launcher.ready("w-1")
    info = (homes / "ann").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (ANN, ANN, 0o700)
    assert unit.ready["cwd"] == str(homes / "ann")
    assert unit.ready["environment"]["HOME"] == str(homes / "ann")


async def test_a_memory_that_another_account_could_exchange_is_not_used(launcher: RunningLauncher) -> None:
    launcher.kill()
    theirs = launcher.folder / "service"
    theirs.mkdir(mode=0o711)
    os.chown(theirs, BOB, BOB)
    launcher.settings["state"] = str(theirs / "state")
    await launcher.start()
    await launcher.client.start(order(launcher, "w-1", ANN))
    await launcher.ready("w-1")
    assert list(theirs.iterdir()) == []
    assert (launcher.folder / "run" / ".state" / "w-1" / "unit.json").exists()
    assert not can_open(BOB, launcher.folder / "run" / ".state" / "w-1" / "unit.json")


async def test_a_file_that_root_writes_does_not_follow_the_owners_links(launcher: RunningLauncher) -> None:
    target = launcher.folder / "target"
    target.write_text("untouched")
    await launcher.client.start(order(launcher, "w-1", ANN))
    folder = place(await launcher.ready("w-1"))
    as_account(ANN, f"import os; os.symlink({str(target)!r}, {str(folder / 'authorized_key')!r})")
    assert (folder / "authorized_key").is_symlink()
    await launcher.client.write_file("w-1", "authorized_key", "new")
    assert target.read_text() == "untouched"
    assert not (folder / "authorized_key").is_symlink()
    assert (folder / "authorized_key").stat().st_uid == ANN


async def test_what_is_removed_does_not_follow_the_owners_links(launcher: RunningLauncher) -> None:
    keep = launcher.folder / "keep"
    keep.mkdir(mode=0o755)
    (keep / "file").write_text("here")
    await launcher.client.start(order(launcher, "w-1", ANN))
    folder = place(await launcher.ready("w-1"))
    as_account(ANN, f"import os; os.symlink({str(keep)!r}, {str(folder / 'link')!r})")
    await launcher.client.stop("w-1", 0)
    await launcher.exited("w-1")
    await launcher.client.forget("w-1")
    assert not folder.exists()
    assert (keep / "file").read_text() == "here"


async def test_a_hard_link_to_somebody_elses_file_is_no_ready_file(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, "never-ready"))
    folder = place(await launcher.seen("w-1"))
    secret = launcher.folder / "secret.json"
    secret.write_text('{"token": "not yours"}')
    os.link(secret, folder / "ready.json")
    assert (await launcher.seen("w-1")).ready is None


# --- who may speak -------------------------------------------------------------------------------

SPEAK = """
import socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b'{"op": "list"}\\n')
print(peer.makefile().readline())
"""


async def speak(uid: int, launcher: RunningLauncher) -> str:
    return await asyncio.to_thread(as_account, uid, SPEAK, str(launcher.socket))


async def test_another_account_does_not_even_reach_the_socket(launcher: RunningLauncher) -> None:
    assert "PermissionError" in await speak(ANN, launcher)


async def test_a_peer_that_is_not_on_the_list_is_refused_and_logged(launcher: RunningLauncher) -> None:
    launcher.socket.chmod(0o666)
    answer = json.loads(await speak(ANN, launcher))
    assert answer["error"]["code"] == "not-allowed"
    assert '"event": "peer-refused"' in launcher.log()


async def test_the_service_account_may_ask(launcher: RunningLauncher) -> None:
    launcher.kill()
    launcher.settings["allowed_uids"] = [BOB]
    await launcher.start()
    assert json.loads(await speak(BOB, launcher)) == {"ok": True, "result": []}
    assert "PermissionError" in await speak(ANN, launcher)


# --- device files --------------------------------------------------------------------------------


async def test_a_gpu_opens_with_the_lease_and_closes_after_it(launcher: RunningLauncher) -> None:
    gpu0, gpu1, shared = (launcher.devices / name for name in ("gpu0", "gpu1", "shared"))
    assert not any(can_open(ANN, path) for path in (gpu0, gpu1, shared))

    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    assert can_open(ANN, gpu0, "r+")
    assert can_open(ANN, shared, "r+")
    assert not can_open(ANN, gpu1)
    assert not any(can_open(BOB, path) for path in (gpu0, gpu1, shared))

    await launcher.client.start(order(launcher, "w-2", BOB, devices=("GPU-1",)))
    assert can_open(BOB, gpu1, "r+")
    assert not can_open(BOB, gpu0)

    await launcher.client.stop("w-1", 5)
    await launcher.exited("w-1")
    assert not any(can_open(ANN, path) for path in (gpu0, gpu1, shared))
    assert can_open(BOB, gpu1)
    assert can_open(BOB, shared)


async def test_shared_files_stay_open_while_a_person_holds_any_lease(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    await launcher.client.start(order(launcher, "w-2", ANN, devices=("GPU-1",)))
    await launcher.client.stop("w-1", 5)
    await launcher.exited("w-1")
    assert not can_open(ANN, launcher.devices / "gpu0")
    assert can_open(ANN, launcher.devices / "gpu1")
    assert can_open(ANN, launcher.devices / "shared")


async def test_a_launcher_that_was_killed_closes_what_ended_meanwhile(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    await launcher.client.start(order(launcher, "w-2", BOB, devices=("GPU-1",)))
    unit = await launcher.ready("w-1")
    launcher.kill()
    os.kill(unit.pid, 15)
    await until(lambda: not exists(unit.pid), "the worker has ended")
    assert can_open(ANN, launcher.devices / "gpu0")
    await launcher.start()
    await launcher.exited("w-1")
    assert not can_open(ANN, launcher.devices / "gpu0")
    assert can_open(BOB, launcher.devices / "gpu1")


async def test_access_that_somebody_gives_behind_our_back_is_taken_again(launcher: RunningLauncher) -> None:
    path = launcher.devices / "gpu0"
    path.chmod(0o666)  # as the driver's own tool does when it makes the file anew
    await until(lambda: not can_open(BOB, path), "the file is closed again")


async def test_a_process_that_keeps_the_gpu_open_after_the_lease_is_ended(launcher: RunningLauncher) -> None:
    path = launcher.devices / "gpu0"
    # A server has no GPU; but while its owner holds a lease, any of his processes can open the file.
    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    await launcher.client.start(order(launcher, "w-2", ANN, "hold", str(path)))
    holder = await launcher.ready("w-2")
    await launcher.client.stop("w-1", 5)
    await launcher.exited("w-1")
    assert (await launcher.exited("w-2")).pid is None
    assert not exists(holder.pid)
    assert '"event": "ending-device-users"' in launcher.log()


async def test_the_files_are_as_before_when_the_launcher_has_ended(launcher: RunningLauncher) -> None:
    path = launcher.devices / "gpu0"
    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    launcher.kill()  # a crash in between must not make the closed state the one to go back to
    await launcher.start()
    await launcher.client.stop("w-1", 5)
    await launcher.exited("w-1")
    assert launcher.end() == 0
    assert path.stat().st_mode & 0o777 == 0o666
    assert all(can_open(uid, path) for uid in (ANN, BOB))
    assert not any(name.startswith("system.posix_acl") for name in os.listxattr(path))


async def test_files_stay_closed_while_units_hold_gpus(launcher: RunningLauncher) -> None:
    await launcher.client.start(order(launcher, "w-1", ANN, devices=("GPU-0",)))
    launcher.end()
    assert can_open(ANN, launcher.devices / "gpu0")
    assert not can_open(BOB, launcher.devices / "gpu0")


# --- passwords -----------------------------------------------------------------------------------


def shadow_hash(password: str) -> str:
    command = ["openssl", "passwd", "-6", password]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


HIDDEN_MACHINE = """
set -e
for name in passwd group shadow; do cp /etc/$name "$1/$name"; done
echo 'gpuann:x:4242:4242::/nonexistent:/bin/sh' >> "$1/passwd"
echo 'gpuann:x:4242:' >> "$1/group"
echo "gpuann:$2:19000:0:99999:7:::" >> "$1/shadow"
chmod 0644 "$1/passwd" "$1/group"; chmod 0600 "$1/shadow"
for name in passwd group shadow; do mount --bind "$1/$name" /etc/$name; done
shift 2
exec "$@"
"""


async def test_pam_decides_on_passwords_and_system_accounts_stay_out() -> None:
    hashed = shadow_hash("right horse")
    with short_folder() as folder:
        launcher = RunningLauncher(folder, accounts={"mode": "pam"})
        (folder / "machine").mkdir(mode=0o711)
        launcher.inside = [
            "unshare", "--mount", "--propagation", "private",
            "sh", "-c", HIDDEN_MACHINE, "sh", str(folder / "machine"), hashed,
        ]  # fmt: skip
        await launcher.start()
        try:
            assert await launcher.client.authenticate("gpuann", "right horse")
            assert not await launcher.client.authenticate("gpuann", "wrong horse")
            assert not await launcher.client.authenticate("gpuann", "")
            assert not await launcher.client.authenticate("root", "right horse")
            assert not await launcher.client.authenticate("daemon", "")
            assert not await launcher.client.authenticate("no-such-person", "x")

            account = Account(uid=4242, gid=4242, name="gpuann", home="/nonexistent")
            await launcher.client.start(launcher.order("w-1", account=account))
            unit = await launcher.ready("w-1")
            assert unit.ready["uid"] == 4242
            for forged in ({"uid": 4243}, {"gid": 0}, {"name": "root"}, {"uid": 0, "gid": 0, "name": "root"}):
                with pytest.raises(NotAllowed):
                    await launcher.client.start(
                        launcher.order("w-2", account=account.model_copy(update=forged))
                    )
        finally:
            await launcher.close()


# --- a launcher that is not root -------------------------------------------------------------------


async def test_an_ordinary_account_runs_its_own_launcher_and_starts_things_only_as_itself() -> None:
    with short_folder() as folder:
        launcher = RunningLauncher(folder, accounts={"mode": "shared"})
        # The test's own account under another number: not root there, and without root's rights.
        launcher.inside = ["unshare", "--user", "--map-user=4242", "--map-group=4242"]
        await launcher.start()
        try:
            with pytest.raises(NotAllowed, match="not root"):
                await launcher.client.start(launcher.order("w-1", account=numbered(ANN, folder)))
            with pytest.raises(NotAllowed):
                await launcher.client.start(launcher.order("w-1", account=numbered(0, folder)))
            own = Account(uid=4242, gid=4242, name="me", home=str(folder))
            await launcher.client.start(launcher.order("w-1", "hide-children", account=own))
            unit = await launcher.ready("w-1")
            assert unit.ready["uid"] == 4242
            launcher.kill()
            await launcher.start()
            await launcher.client.stop("w-1", 5)
            assert (await launcher.exited("w-1")).exit_status == 0
            assert not exists(unit.pid)
        finally:
            await launcher.close()
