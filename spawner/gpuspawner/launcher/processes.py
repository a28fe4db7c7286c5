"""Starting units, watching them, and making sure that nothing of them is left.

A level-triggered loop (`Units.look`) compares what should be with what is, woken by the ends of
processes (pidfds) and by time. It owns three decisions: when a unit is told to stop, when all its
processes are killed (its grace is over, or its main process has ended by itself), and when it has
*ended*, which is said only after no process of it exists and its devices are closed and let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gpulease.errors import BadRequest, Conflict, NotAllowed, NotFound, Unavailable
from gpuspawner.launcher import folders
from gpuspawner.launcher.devices import DeviceFiles
from gpuspawner.launcher.proctable import Identity, ProcessTable, alive, send
from gpuspawner.launcher.protocol import MARKER, RUN_MARKER, Account, ProcessSeen, UnitOrder, UnitSeen
from gpuspawner.launcher.settings import LauncherSettings, Prefixes
from gpuspawner.launcher.units import Record, Unit, boot_id, load_units, since_boot

COMMANDS = {
    "server": ("-P", "-m", "jupyterhub.singleuser"),
    "worker": ("-P", "-m", "gpusession.worker", "--dir", "{folder}"),
}
"""All that a unit can run, after ``<prefix>/bin/python``. -P: a ``random.py`` in somebody's home
must not stand in for Python's own."""

CALM_SECONDS = 2.0
BUSY_SECONDS = 0.05
"""How often the loop looks while something is being killed; else `CALM_SECONDS`, or at the end of a
grace, or when a process that is watched ends."""
KEEPER_SECONDS = 15.0
EMPTY_SECONDS = 2.0
"""A keeper without children ends by itself at once; one that does not is killed after this time."""
SWEEPS = 5
PROCESSES_SHOWN = 200


class Units:
    """Every unit of this launcher."""

    def __init__(self, settings: LauncherSettings, devices: DeviceFiles, log: Callable[..., None]) -> None:
        self._settings = settings
        self._state = settings.memory()
        self._prefixes = Prefixes(settings.prefixes, settings.prefixes_file)
        self._devices = devices
        self._log = log
        self._folders = folders.UnitFolders(settings.runtime)
        self._units: dict[str, Unit] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._pidfds: dict[Identity, int] = {}
        self._wake = asyncio.Event()
        self._boot = boot_id()

    # --- what may be asked -----------------------------------------------------------------

    async def start(self, order: UnitOrder) -> UnitSeen:
        existing = self._units.get(order.id)
        if existing is None:
            # In a thread: the machine's list of accounts may be a slow directory on the network.
            account = await asyncio.to_thread(self._settings.accounts.check, order.account)
            existing = self._units.get(order.id)
        if existing is not None:
            return self._seen(existing, None)
        if not self._prefixes.allows(order.prefix):
            raise NotAllowed("This environment is not registered here.", hint="Register it: gpuhub env add.")
        self._check_devices(order)
        unit = Unit(
            Record(
                id=order.id,
                kind=order.kind,
                account=account,
                prefix=order.prefix,
                label=order.label,
                devices=order.devices,
                grace_seconds=order.grace_seconds,
                started_at=time.time(),
                boot=self._boot,
                run=secrets.token_hex(12),
            ),
            self._state / order.id,
            starting=True,
        )
        self._units[order.id] = unit
        try:
            unit.erase()
            unit.folder.mkdir(mode=0o700)
            unit.save()
            folders.make_home(self._settings.accounts.homes, account.home, account.uid, account.gid)
            self._folders.make(order.id, account.uid, account.gid, order.files)
            if not self._open_devices():
                raise Unavailable("The GPU's device files could not be opened to the account.")
            await self._start_keeper(unit, order, account)
        except BaseException as error:
            unit.starting = False
            unit.record.message = str(error) or "It could not be started."
            unit.record.kill_at = since_boot()
            with contextlib.suppress(OSError):
                unit.save()
            self._wake.set()
            if isinstance(error, OSError):
                raise Unavailable(f"The unit could not be started: {error.strerror}.") from error
            raise
        unit.starting = False
        self._wake.set()
        return self._seen(unit, None)

    def stop(self, unit_id: str, grace_seconds: float | None) -> None:
        unit = self._units.get(unit_id)
        if unit is None or unit.record.gone:
            return
        grace = unit.record.grace_seconds if grace_seconds is None else grace_seconds
        kill_at = since_boot() + grace
        if unit.record.kill_at is None or kill_at < unit.record.kill_at:
            unit.record.kill_at = kill_at
            unit.save()
        self._wake.set()

    def seen(self, *, processes: bool) -> list[UnitSeen]:
        table = ProcessTable.look() if processes else None
        return [self._seen(unit, table) for unit in list(self._units.values())]

    async def forget(self, unit_id: str) -> None:
        unit = self._units.get(unit_id)
        if unit is None:
            return
        if not unit.record.gone:
            raise Conflict("It still runs.", hint="Stop it first.")
        await asyncio.to_thread(self._folders.remove, unit_id)
        unit.erase()
        self._units.pop(unit_id, None)

    def write_file(self, unit_id: str, name: str, text: str) -> None:
        unit = self._units.get(unit_id)
        if unit is None or unit.record.gone:
            raise NotFound("There is no such unit.")
        account = unit.record.account
        self._folders.write(unit_id, account.uid, account.gid, name, text)

    # --- the loop --------------------------------------------------------------------------

    def adopt(self) -> None:
        """Find what an earlier launcher left: what still runs is ours again, the rest has ended."""
        for unit in load_units(self._state):
            if unit.record.boot != self._boot:
                unit.record.gone = True
                unit.record.message = unit.record.message or "The machine was restarted."
                unit.save()
            unit.read_keeper()
            self._units[unit.record.id] = unit
            if not unit.record.gone:
                if unit.keeper is None:
                    self._find_keeper(unit)
                self._log("adopted", unit=unit.record.id, pid=unit.main.pid if unit.main else None)
        self._open_devices()
        self._wake.set()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            wait_seconds = CALM_SECONDS
            try:
                wait_seconds = self.look()
            except OSError as error:  # a full disk, too many files: the next look may do
                self._log("look-failed", level="error", error=str(error))
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_seconds)

    def look(self) -> float:
        """Bring every unit one step further. Return after how many seconds to look again."""
        table: ProcessTable | None = None
        wait_seconds = CALM_SECONDS
        for unit in list(self._units.values()):
            if unit.record.gone or unit.starting:
                continue
            table = table or ProcessTable.look()
            unit.read_keeper()
            self._watch(unit)
            folders.trim(unit.log, self._settings.log_bytes)
            if unit.main is not None and alive(unit.main):
                unit.members(table, thorough=False)
                if unit.record.kill_at is None:
                    continue
                left_seconds = unit.record.kill_at - since_boot()
                if left_seconds > 0:
                    self._tell(unit)
                    wait_seconds = min(wait_seconds, left_seconds)
                    continue
            if self._end(unit):
                wait_seconds = BUSY_SECONDS
        self._open_devices()
        return wait_seconds

    def reap(self) -> None:
        """Collect children that have ended: keepers, helpers, and orphans of keepers that were killed."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            child = self._children.pop(pid, None)
            if child is not None:
                child.returncode = code
            for unit in self._units.values():
                mine = unit.main is not None and unit.main.pid == pid and not unit.record.gone
                if mine and unit.exit_status is None:
                    unit.exit_status = code
        self._wake.set()

    def helper(self, child: subprocess.Popen[bytes]) -> None:
        """Let `reap` collect a helper process too."""
        self._children[child.pid] = child

    def close(self) -> None:
        """Let go of everything but the units, which go on."""
        for fd in self._pidfds.values():
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._pidfds.clear()
        self._folders.close()
        if not any(unit.record.devices and not unit.record.gone for unit in self._units.values()):
            self._devices.restore()

    # --- starting --------------------------------------------------------------------------

    def _check_devices(self, order: UnitOrder) -> None:
        held = {
            device for unit in self._units.values() if not unit.record.gone for device in unit.record.devices
        }
        for device in order.devices:
            if not self._devices.known(device):
                raise BadRequest("There is no such GPU on this machine.")
            if device in held:
                raise Conflict("The GPU is still in use by another worker.")

    async def _start_keeper(self, unit: Unit, order: UnitOrder, account: Account) -> None:
        folder = str(self._folders.path(order.id))
        python = f"{order.prefix.rstrip('/')}/bin/python"
        environment = {
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "PATH": f"{order.prefix.rstrip('/')}/bin:/usr/local/bin:/usr/bin:/bin",
            **order.env,
            MARKER: order.id,
            RUN_MARKER: unit.record.run,
        }
        spec = {
            "state": str(unit.folder),
            "argv": [
                python,
                *(part.replace("{folder}", folder) for part in COMMANDS[order.kind]),
                *order.args,
            ],
            "env": environment,
            "uid": account.uid,
            "gid": account.gid,
            "groups_of": account.name if self._settings.accounts.mode == "pam" else None,
            "home": environment["HOME"],
            "folder": folder,
        }
        child = _open_keeper(unit)
        self._children[child.pid] = child
        try:
            async with asyncio.timeout(KEEPER_SECONDS):
                answer = await asyncio.to_thread(_converse, child, json.dumps(spec).encode())
        except TimeoutError:
            child.kill()
            answer = b""
        unit.read_keeper()
        if answer != b"started\n" or unit.main is None:
            raise Unavailable("The unit could not be started.")

    def _find_keeper(self, unit: Unit) -> None:
        """A launcher that died between two lines may have left a keeper that has not written yet."""
        table = ProcessTable.look()
        unit.known |= table.marked(unit.record.run, os.geteuid())
        if not unit.known and not unit.record.message:
            unit.record.message = "Its start was interrupted."

    def _open_devices(self) -> bool:
        holders = {
            device: unit.record.account.uid
            for unit in self._units.values()
            if not unit.record.gone
            for device in unit.record.devices
        }
        return self._devices.apply(holders)

    # --- ending ----------------------------------------------------------------------------

    def _watch(self, unit: Unit) -> None:
        """Wake the loop when the main process or the keeper ends."""
        loop = asyncio.get_running_loop()
        for identity in (unit.main, unit.keeper):
            if identity is None or identity in self._pidfds or not alive(identity):
                continue
            try:
                fd = os.pidfd_open(identity.pid)
            except OSError:
                continue
            self._pidfds[identity] = fd
            loop.add_reader(fd, self._ended, identity)

    def _ended(self, identity: Identity) -> None:
        fd = self._pidfds.pop(identity, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._wake.set()

    def _tell(self, unit: Unit) -> None:
        if not unit.record.told and unit.main is not None:
            unit.record.told = True
            unit.save()
            send(unit.main, signal.SIGTERM)
            send(unit.main, signal.SIGCONT)  # a stopped process could not save

    def _end(self, unit: Unit) -> bool:
        """Kill what is left. Return whether something is still there."""
        for _ in range(SWEEPS):
            table = ProcessTable.look()
            members = unit.members(table, thorough=True)
            if not members:
                break
            unit.empty_since = None
            for member in members:
                send(member, signal.SIGKILL)
        else:
            return True
        if alive(unit.keeper):
            # It collects the last ones and ends. In its last moments, or when something holds it
            # in the kernel, it is given a little time.
            unit.empty_since = unit.empty_since or since_boot()
            if since_boot() - unit.empty_since < EMPTY_SECONDS:
                return True
            assert unit.keeper is not None
            send(unit.keeper, signal.SIGKILL)
            return True
        unit.read_keeper()
        return self._let_go(unit)

    def _let_go(self, unit: Unit) -> bool:
        """Close its devices; nothing of the account may go on holding them. Return whether one does."""
        holders = {
            device: other.record.account.uid
            for other in self._units.values()
            if not other.record.gone and other is not unit
            for device in other.record.devices
        }
        self._devices.apply(holders)
        for device in unit.record.devices:
            if intruders := self._devices.holders(device, unit.record.account.uid):
                self._log("ending-device-users", unit=unit.record.id, device=device, pids=intruders)
                for pid in intruders:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                return True
        unit.record.gone = True
        unit.save()
        self._log("ended", unit=unit.record.id, exit_status=unit.exit_status)
        return False

    # --- telling ---------------------------------------------------------------------------

    def _seen(self, unit: Unit, table: ProcessTable | None) -> UnitSeen:
        record = unit.record
        processes: list[ProcessSeen] = []
        if table is not None and not record.gone:
            for identity in sorted(unit.members(table, thorough=False), key=lambda known: known.pid):
                row = table.by_pid[identity.pid]
                processes.append(
                    ProcessSeen(
                        pid=row.pid,
                        name=row.name,
                        cpu_seconds=row.cpu_seconds,
                        rss_bytes=row.rss_bytes,
                        main=identity == unit.main,
                    )
                )
        return UnitSeen(
            id=record.id,
            kind=record.kind,
            pid=unit.main.pid if unit.main and not record.gone and alive(unit.main) else None,
            phase="exited" if record.gone else "running",
            stopping=unit.stopping,
            exit_status=unit.exit_status,
            message=record.message,
            started_at=record.started_at,
            folder=str(self._folders.path(record.id)),
            label=record.label,
            prefix=record.prefix,
            account=record.account,
            ready=None if record.gone else self._folders.read_ready(record.id, record.account.uid),
            processes=tuple(processes[:PROCESSES_SHOWN]),
            devices=record.devices,
            log_tail=folders.tail(unit.log) if table is not None else "",
        )


def _open_keeper(unit: Unit) -> subprocess.Popen[bytes]:
    log = os.open(unit.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")), unit.record.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env={MARKER: unit.record.id, RUN_MARKER: unit.record.run, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    finally:
        os.close(log)


def _converse(child: subprocess.Popen[bytes], spec: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin as pipe, contextlib.suppress(BrokenPipeError):
        pipe.write(spec)
    with child.stdout as pipe:
        return pipe.readline(100)
