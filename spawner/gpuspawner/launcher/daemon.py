"""The launcher's process: a Unix socket, the check who speaks, one log line per request.

Run as ``python -m gpuspawner.launcher --settings FILE``. It ends on SIGTERM, SIGINT or a request;
units go on, and the next launcher finds them. Log lines are JSON on standard error with the keys
``time level event`` and what belongs to the event; never an environment, a file or a password.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpulease.errors import BadRequest, GpuhubError, NotAllowed, TooLarge, Unavailable
from gpuspawner.launcher import folders
from gpuspawner.launcher.accounts import pam_account
from gpuspawner.launcher.devices import DeviceFiles
from gpuspawner.launcher.processes import Units
from gpuspawner.launcher.protocol import (
    MAX_REQUEST_BYTES,
    REQUEST,
    Authenticate,
    Forget,
    List,
    Request,
    Shutdown,
    Start,
    Stop,
    WriteFile,
)
from gpuspawner.launcher.settings import LauncherSettings, UnsafeSettings, load

PR_SET_CHILD_SUBREAPER = 36
PAM_SECONDS = 30.0
PAM_AT_ONCE = 4
"""Passwords tried at the same time: guessing must not fill the machine."""
IDLE_SECONDS = 60.0
"""A connection that says nothing for so long is closed."""

TURN_AWAY_SECONDS = 2.0


def log(event: str, *, level: str = "info", **about: Any) -> None:
    """Write one line."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
    line = json.dumps({"time": stamp, "level": level, "event": event, **about}, default=str)
    with contextlib.suppress(OSError, ValueError):  # a reader that has gone must not stop the launcher
        print(line, file=sys.stderr, flush=True)


class Launcher:
    """Answers requests on the socket."""

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings = settings
        self._allowed = {os.geteuid(), *settings.allowed_uids}
        self._pam_turns = asyncio.Semaphore(PAM_AT_ONCE)
        self.over = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        root = os.geteuid() == 0
        devices = DeviceFiles(
            settings.devices,
            settings.shared_devices,
            memory=settings.memory() / "devices.json",
            manage=root and settings.accounts.mode != "shared",
            restrict=settings.restrict_devices,
            log=log,
        )
        self.units = Units(settings, devices, log)

    async def serve(self, listener: socket.socket) -> None:
        """Answer until `over` is set."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.over.set)
        loop.add_signal_handler(signal.SIGCHLD, self.units.reap)
        self.units.reap()
        self.units.adopt()
        looking = asyncio.create_task(self.units.run())
        server = await asyncio.start_unix_server(self._connected, sock=listener, limit=MAX_REQUEST_BYTES)
        log("listening", socket=str(self._settings.socket), uid=os.geteuid())
        over = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait({over, looking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.close()
            # The socket's file goes first: who comes now waits for the next launcher.
            self._settings.socket.unlink(missing_ok=True)
            over.cancel()
            for task in list(self._connections):
                task.cancel()
            failed = looking.done() and not looking.cancelled() and looking.exception()
            looking.cancel()
            await asyncio.gather(looking, over, *self._connections, return_exceptions=True)
            self.units.close()
            log("ended-itself")
        if failed:
            raise failed

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            peer: socket.socket = writer.get_extra_info("socket")
            pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in self._allowed:
                log("peer-refused", level="warning", peer_uid=uid, peer_pid=pid)
                await self._turn_away(reader, writer, NotAllowed("This account may not ask the launcher."))
                return
            while not self.over.is_set():
                try:
                    async with asyncio.timeout(IDLE_SECONDS):
                        line = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    log("request-refused", level="warning", peer_uid=uid, error="too large")
                    await self._turn_away(reader, writer, TooLarge("The request is too large."))
                    return
                except (asyncio.IncompleteReadError, TimeoutError):
                    return
                await self._say(writer, await self._answer(line, uid, pid))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _turn_away(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: GpuhubError
    ) -> None:
        """Say no, and let the peer finish its sentence: closing on unread data would swallow the answer."""
        await self._say(writer, error)
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_AWAY_SECONDS):
                while await reader.read(65536):
                    pass

    @staticmethod
    async def _say(writer: asyncio.StreamWriter, content: Any) -> None:
        if isinstance(content, GpuhubError):
            body: dict[str, Any] = {"ok": False, "error": content.as_dict()}
        else:
            body = {"ok": True, "result": content}
        writer.write(json.dumps(body).encode() + b"\n")
        await writer.drain()

    async def _answer(self, line: bytes, uid: int, pid: int) -> Any:
        begun = time.monotonic()
        about: dict[str, Any] = {"peer_uid": uid, "peer_pid": pid}
        outcome = "ok"
        try:
            request = _understand(line)
            about.update(_describe(request))
            return await self._do(request)
        except GpuhubError as error:
            outcome = error.code
            about["error"] = error.message
            return error
        except Exception as error:  # noqa: BLE001 - the border: others get a sentence, the log gets the story
            outcome = "internal"
            about["error"] = f"{type(error).__name__}: {error}"
            return Unavailable("The launcher could not do it.")
        finally:
            quiet = about.get("op") == "list" and outcome == "ok"
            if not quiet:  # asked every second; it changes nothing
                level = "info" if outcome == "ok" else "warning"
                milliseconds = round((time.monotonic() - begun) * 1000)
                log("request", level=level, outcome=outcome, milliseconds=milliseconds, **about)

    async def _do(self, request: Request) -> Any:
        match request:
            case Start(order=order):
                return (await self.units.start(order)).model_dump(mode="json")
            case Stop(id=unit, grace_seconds=grace):
                self.units.stop(unit, grace)
            case List(processes=processes):
                return [seen.model_dump(mode="json") for seen in self.units.seen(processes=processes)]
            case Forget(id=unit):
                await self.units.forget(unit)
            case WriteFile(id=unit, name=name, text=text):
                self.units.write_file(unit, name, text)
            case Authenticate(user=user, password=password):
                return await self._authenticate(user, password)
            case Shutdown():
                asyncio.get_running_loop().call_later(0.05, self.over.set)
        return None

    async def _authenticate(self, user: str, password: str) -> bool:
        if self._settings.accounts.mode == "pam":
            try:
                pam_account(user, minimum_uid=self._settings.accounts.minimum_uid)
            except NotAllowed:
                return False
        async with self._pam_turns:
            child = _open_helper(self._settings.pam_service, user)
            self.units.helper(child)
            try:
                async with asyncio.timeout(PAM_SECONDS):
                    return await asyncio.to_thread(_ask_helper, child, password)
            except TimeoutError:
                child.kill()
                raise Unavailable("The password could not be checked in time.") from None


def _open_helper(service: str, user: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "gpuspawner.launcher.pam", service, user],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        start_new_session=True,
    )


def _ask_helper(child: subprocess.Popen[bytes], password: str) -> bool:
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin as pipe, contextlib.suppress(BrokenPipeError):
        pipe.write(password.encode())
    with child.stdout as pipe:
        return pipe.readline(100) == b"yes\n"


def _understand(line: bytes) -> Request:
    try:
        return REQUEST.validate_json(line)
    except ValidationError as error:
        # Without the input: it may hold a key or a password.
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        where = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems[:5])
        raise BadRequest(f"The request is not valid. {where}"[:1000]) from None


def _describe(request: Request) -> dict[str, Any]:
    match request:
        case Start(order=order):
            return {
                "op": "start",
                "unit": order.id,
                "kind": order.kind,
                "uid": order.account.uid if order.account else None,
                "prefix": order.prefix,
                "devices": order.devices,
            }
        case Stop(id=unit, grace_seconds=grace):
            return {"op": "stop", "unit": unit, "grace_seconds": grace}
        case Forget(id=unit):
            return {"op": "forget", "unit": unit}
        case WriteFile(id=unit, name=name):
            return {"op": "write_file", "unit": unit, "file": name}
        case Authenticate(user=user):
            return {"op": "authenticate", "user": user}
    return {"op": request.op}


def _listen(settings: LauncherSettings) -> socket.socket:
    """Open the socket so that at no moment anybody else could have connected."""
    others = [uid for uid in settings.allowed_uids if uid != os.geteuid()]
    settings.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(settings.socket))  # umask 077: 0600
    if os.geteuid() == 0 and len(others) == 1:
        os.chown(settings.socket, others[0], -1)
    elif others:
        settings.socket.chmod(0o666)  # the check of the peer's uid decides
    listener.listen(64)
    listener.setblocking(False)
    return listener


def _prepare() -> None:
    """Make this process what units may inherit from: nothing ignored, nothing blocked, a subreaper."""
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # A terminal that goes away or a ^C for the foreground group is for the supervisor, not for us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(arguments: list[str] | None = None) -> int:
    """Run the launcher. Exit status 2: the settings cannot be used; 3: another launcher runs."""
    parser = argparse.ArgumentParser(prog="gpuspawner.launcher", description=__doc__.partition("\n")[0])
    parser.add_argument("--settings", type=Path, required=True, help="the settings' JSON file")
    try:
        settings = load(parser.parse_args(arguments).settings)
    except UnsafeSettings as error:
        log("unusable-settings", level="error", error=str(error))
        return 2
    _prepare()
    try:
        folders.own_folder(settings.runtime, 0o711 if os.geteuid() == 0 else 0o700)
        folders.own_folder(settings.memory(), 0o700)
        lock = os.open(settings.memory() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log("another-launcher-runs", level="error", state=str(settings.memory()))
        return 3
    except OSError as error:
        log("unusable-settings", level="error", error=str(error))
        return 2
    return asyncio.run(_serve(settings))


async def _serve(settings: LauncherSettings) -> int:
    try:
        launcher = Launcher(settings)
        listener = _listen(settings)
    except OSError as error:
        log("unusable-settings", level="error", error=str(error))
        return 2
    await launcher.serve(listener)
    return 0
