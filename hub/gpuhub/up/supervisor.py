"""`gpuhub up`: starts the parts, says when they answer, keeps them up, ends them well.

Order of the start: launcher, proxy, broker and hub, culler. A part that keeps falling over before
everything answered once ends the start with its last lines; later it is only started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from gpuhub.up.answers import Answers
from gpuhub.up.children import Child
from gpuhub.up.greeting import Welcome, describe_gpus, sign_in_words
from gpuhub.up.options import UpFailed
from gpuhub.up.plan import Plan, orders
from gpuhub.up.readable import Log
from gpuhub.up.stopping import stop_units
from gpuspawner.launcher.client import LauncherClient

START_SECONDS = 180.0
LOOK_SECONDS = 0.1
FALLS_AT_START = 3
EXAMPLE_NAMES = ("ann", "ben")


class Supervisor:
    """One run of `gpuhub up`."""

    def __init__(self, plan: Plan, log: Log, show: Callable[[str], None]) -> None:
        self._plan, self._log, self._show = plan, log, show
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()
        self._answers = Answers(plan)
        self._launcher = LauncherClient(plan.launcher_socket, patience_seconds=5.0)
        self._errands: set[asyncio.Task[None]] = set()
        self.children: dict[str, Child] = {}

    async def run(self) -> int:
        """Run until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        ready_file = self._plan.options.ready_file
        try:
            await self._start()
            if not self._stop.is_set():
                if ready_file is not None:
                    write_ready_file(ready_file, ready_content(self._plan))
                self._show(self._welcome().text())
                await self._stop.wait()
            return 0
        finally:
            if ready_file is not None:
                with contextlib.suppress(OSError):
                    ready_file.unlink()
            await self._end()

    # --- start

    async def _start(self) -> None:
        for name, order in orders(self._plan).items():
            self.children[name] = Child(order, self._log, self._restarted)
        self._log.say(f"Starting; the whole story is in {self._plan.data.path / 'logs' / 'gpuhub.log'}.")
        self._log.calm = True
        for parts in (("launcher",), ("proxy", "hub", "broker")):
            for part in parts:
                self.children[part].start()
            for part in parts:
                await self._wait_for(part)
        self._log.calm = False
        if self._plan.options.cull_after_seconds and not self._stop.is_set():
            self.children["culler"].start()

    async def _wait_for(self, name: str) -> None:
        ask: Callable[[], Awaitable[str | None]] = getattr(self._answers, name)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        missing: str | None = "it has not answered yet"
        while not self._stop.is_set():
            missing = await ask()
            if missing is None:
                return
            for child in self.children.values():
                if child.falls >= FALLS_AT_START:
                    raise UpFailed(_failed(child, "does not start."))
            if loop.time() > deadline:
                raise UpFailed(_failed(self.children[name], f"does not answer ({missing})."))
            await asyncio.sleep(LOOK_SECONDS)

    def _restarted(self, name: str) -> None:
        if name == "proxy":
            self._errand(self._give_routes())

    async def _give_routes(self) -> None:
        """A fresh proxy knows no server; the hub would tell it only minutes later."""
        for _ in range(100):
            if await self._answers.proxy() is None and await self._answers.sync_routes() is None:
                self._log.say("The proxy has its routes again.")
                return
            await asyncio.sleep(LOOK_SECONDS * 3)

    def _errand(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # --- end

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._impatient.set()
        else:
            self._stop.set()
            self._log.say("Stopping.")

    async def _end(self) -> None:
        self._stop.set()
        for errand in list(self._errands):
            errand.cancel()
        launcher = self.children.get("launcher")
        if launcher is not None and launcher.pid is not None:
            await stop_units(self._launcher, self._log, self._impatient)
        for name in ("culler", "hub", "broker", "proxy", "launcher"):
            if name in self.children:
                await self.children[name].end()
        await self._answers.close()
        self._log.say("Stopped.")

    def _welcome(self) -> Welcome:
        plan = self._plan
        options, secrets = plan.options, plan.secrets
        return Welcome(
            url=plan.url,
            sign_in=sign_in_words(
                options.auth, secrets.password, options.admin_names, secrets.admin_password
            ),
            gpus=describe_gpus(plan.inventory),
            accounts=plan.people.words,
            warnings=(plan.people.warning,) if plan.people.warning else (),
        )


def ready_content(plan: Plan) -> dict[str, object]:
    """What scripts rely on: ``url``, ``admin_token``, ``users`` (names and how they sign in)."""
    options, secrets = plan.options, plan.secrets
    users: list[dict[str, object]] = []
    if options.auth == "shared-password":
        # Any name is let in with the password; these two are examples.
        users += [
            {"name": name, "admin": False, "sign_in": "password", "password": secrets.password}
            for name in EXAMPLE_NAMES
            if name not in options.admin_names
        ]
        users += [
            {"name": name, "admin": True, "sign_in": "password", "password": secrets.admin_password}
            for name in options.admin_names
        ]
    else:
        users += [{"name": name, "admin": True, "sign_in": options.auth} for name in options.admin_names]
    return {
        "version": 1,
        "url": plan.url,
        "admin_token": secrets.admin_token,
        "users": users,
        "gpus": {"count": len(plan.inventory.gpus), "simulated": plan.inventory.simulated},
        "accounts": plan.people.mode,
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(),
    }


def write_ready_file(path: Path, content: dict[str, object]) -> None:
    """Write it in one step, 0600: it holds an administrator's token."""
    aside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    os.replace(aside, path)


def _failed(child: Child, what: str) -> str:
    tail = "\n    ".join(child.tail)
    return f"The {child.name} {what} Its last lines:\n    {tail}"
