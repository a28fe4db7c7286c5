"""GpuLocalSpawner: servers on this machine, as units of the launcher.

Promises: a server runs under the person's account, without a GPU and without any secret of hub or
broker in its environment; it is found again after a restart of the hub (its id follows from user and
server, and the launcher remembers what it started); a stop gives it time to save; a start that fails
says so in one sentence, with the end of its log in Details. The page and the API are judged alike.

The address that the hub is told is checked to belong to the person's account: on a machine with
other people, a port could be taken by one of them between choosing and listening. And it stays reserved
until the proxy leads nobody there any more, also when the server dies (`reservation`).
"""

from __future__ import annotations

import asyncio
import json
import pwd
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from traitlets import Bool, Dict, Instance, Int, List, Unicode, default

from gpulease.errors import GpuhubError
from gpuspawner import choices, listening
from gpuspawner.base import GpuSpawner
from gpuspawner.language import Sentence
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import Account, UnitOrder, UnitSeen
from gpuspawner.names import server_unit_id
from gpuspawner.profiles import Choice
from gpuspawner.refusals import Refusal
from gpuspawner.reservation import LOOPBACK, Reservation

LOOK_SECONDS = 0.15
TRIES = 3
"""Ports that are tried when somebody else takes one in between."""


NAME_THE_PROMPT = r"PS1=${PS1//\\u/$USER}; unset PROMPT_COMMAND"
"""Where an account is a number only, bash greets with "I have no name!"; this names the person, once."""


class GpuLocalSpawner(GpuSpawner, Spawner):  # type: ignore[misc]  # jupyterhub is untyped
    """Starts, watches and stops a person's server through the launcher."""

    launcher_socket = Unicode(help="The launcher's Unix socket.").tag(config=True)
    runtime_dir = Unicode(help="Folder that holds one folder per unit; the launcher's.").tag(config=True)
    account_mode = Unicode("shared", help="shared, pam or numbered: see gpuspawner.launcher.accounts.").tag(
        config=True
    )
    homes_dir = Unicode(help="Folder of homes (shared and numbered).").tag(config=True)
    accounts_book = Unicode(help="JSON file that remembers account numbers (numbered).").tag(config=True)
    shared_uid = Int(-1, help="shared: the account's uid; -1: the hub's own.").tag(config=True)
    own_prefix = Unicode(help="The Python prefix that gpuhub runs in: the first environment.").tag(
        config=True
    )
    code_server = Unicode(help="Path of the code-server command; empty: VS Code is not offered.").tag(
        config=True
    )
    profile_list = List(Dict(), help="Overrides the environments: a profile list in KubeSpawner's form.").tag(
        config=True
    )
    allow_root = Bool(False, help="Servers may run as root (everybody shares root's account).").tag(
        config=True
    )

    prefix = Unicode(help="Python prefix of the chosen environment.").tag(config=True)

    port_chosen = Int(0)
    launcher = Instance(LauncherClient)

    @default("launcher")
    def _launcher(self) -> LauncherClient:
        return LauncherClient(self.launcher_socket)

    _reserved: Reservation | None = None

    @property
    def unit_id(self) -> str:
        return server_unit_id(self.user.name, self.name)

    # --- what may be chosen

    def raw_profiles(self, groups: set[str]) -> list[dict[str, Any]]:
        return choices.profile_list(
            Path(self.environments_file), Path(self.own_prefix), groups, vscode=bool(self.code_server)
        )

    async def take(self, choice: Choice) -> None:
        await super().take(choice)
        self.prefix = self.prefix or self.own_prefix

    # --- JupyterHub's spawner interface

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.port_chosen = int(state.get("port", 0))

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.port_chosen:
            state["port"] = self.port_chosen
            state["unit"] = self.unit_id
        return state

    def clear_state(self) -> None:
        super().clear_state()
        self.port_chosen = 0
        if self._reserved is not None:  # the hub has taken the server off the proxy before
            self._reserved.release()
            self._reserved = None

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        folder = str(Path(self.runtime_dir) / self.unit_id)
        path = [str(Path(self.prefix) / "bin")]
        if self.code_server:
            path.append(str(Path(self.code_server).parent))
        path += ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        env.update(
            **self.session_env(),
            GPUHUB_RUNTIME_DIR=folder,
            JUPYTER_CONFIG_PATH=folder,
            JUPYTER_RUNTIME_DIR=folder,
            SHELL=env.get("SHELL", "/bin/bash"),
            PATH=":".join(path),
        )
        return {name: str(value) for name, value in env.items() if value is not None}

    async def start(self) -> tuple[str, int]:
        """Start the server and return where it listens. Raises `Refusal` with one sentence."""
        self._steps.clear()
        try:
            account = self._account()
            await self._clear_away()
            for _ in range(TRIES):
                with Reservation() as reserved:
                    address = await self._start_on(account, reserved.port)
                    if address is not None:
                        reserved.close_to_others()
                        self._reserved = reserved
                        return address
        except GpuhubError as error:
            raise Refusal(error.message, hint=error.hint, reason=error.code, status_code=503) from error
        raise Refusal(
            "No free address was found for your server.",
            hint="Try again.",
            reason="address",
            status_code=503,
        )

    async def stop(self, now: bool = False) -> None:
        """Stop the server: it saves its notebooks first, within `save_seconds` (``now``: a few seconds)."""
        grace = 5.0 if now else self.save_seconds
        await self.launcher.stop(self.unit_id, grace)
        deadline = time.monotonic() + grace + 20
        while time.monotonic() < deadline:
            unit = await self._seen(processes=False)
            if unit is None or unit.phase == "exited":
                if unit is not None:
                    await self.launcher.forget(self.unit_id)
                return
            await asyncio.sleep(LOOK_SECONDS)
        self.log.error("%s is still there after its time to save", self.unit_id)

    async def poll(self) -> int | None:
        try:
            unit = await self._seen(processes=False)
        except GpuhubError:
            # The launcher is being restarted. Its units live on: nothing may be concluded.
            return None
        if unit is None:
            return 0
        if unit.phase == "running":
            return None
        return unit.exit_status if unit.exit_status is not None else 1

    # --- inside

    def _account(self) -> Account:
        accounts = Accounts(
            self.account_mode,  # type: ignore[arg-type]
            homes=Path(self.homes_dir),
            book=Path(self.accounts_book) if self.accounts_book else None,
            shared_uid=None if self.shared_uid < 0 else self.shared_uid,
        )
        return accounts.resolve(self.user.name)

    async def _seen(self, *, processes: bool = True) -> UnitSeen | None:
        units = await self.launcher.list(processes=processes)
        return next((unit for unit in units if unit.id == self.unit_id), None)

    async def _clear_away(self) -> None:
        """Make room: what is left of an earlier server is ended (it saves), then forgotten."""
        if await self._seen(processes=False) is not None:
            self.say(5, "Making room: your last server is saving its work.")
            await self.stop()

    async def _start_on(self, account: Account, port: int) -> tuple[str, int] | None:
        self.say(10, "Preparing your home folder.")
        order = self._order(account, port)
        await self.launcher.start(order)
        self.say(30, Sentence("Starting {what}.", what=self.title()))
        deadline = time.monotonic() + self.start_timeout
        warned = False
        while time.monotonic() < deadline:
            owner = listening.owner(port)
            if owner == account.uid:
                self.port_chosen = port
                self.say(80, "Your server is up. Opening it.")
                return LOOPBACK, port
            unit = await self._seen()
            if unit is None or unit.phase == "exited" or unit.stopping:
                await self._give_up(unit)
            if owner is not None:
                await self.launcher.stop(self.unit_id, 1.0)
                await self._gone()
                return None
            if not warned and time.monotonic() > deadline - self.start_timeout + 10:
                warned = True
                self.say(50, "This takes longer than usual; the machine is busy.")
            await asyncio.sleep(LOOK_SECONDS)
        unit = await self._seen()
        await self.launcher.stop(self.unit_id, 1.0)
        raise Refusal(
            Sentence("Your server did not answer within {seconds} seconds.", seconds=self.start_timeout),
            hint="Try again; if it stays, tell your operator.",
            reason="timeout",
            details=unit.log_tail if unit else "",
            status_code=503,
        )

    async def _give_up(self, unit: UnitSeen | None) -> None:
        details = "" if unit is None else f"{unit.message}\n{unit.log_tail}".strip()
        if unit is not None and unit.phase == "exited":
            await self.launcher.forget(self.unit_id)
        raise Refusal(
            Sentence("{what} could not be started.", what=self.title()),
            hint="Choose another environment, or show the details to your operator.",
            reason="exited",
            details=details,
            status_code=503,
        )

    async def _gone(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            unit = await self._seen(processes=False)
            if unit is None:
                return
            if unit.phase == "exited":
                await self.launcher.forget(self.unit_id)
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _order(self, account: Account, port: int) -> UnitOrder:
        self.port, self.ip = port, LOOPBACK
        env = self.get_env()
        env.update(
            HOME=account.home,
            USER=account.name,
            LOGNAME=account.name,
            JUPYTERHUB_ROOT_DIR=account.home,
            JUPYTERHUB_SERVICE_URL=f"http://{LOOPBACK}:{port}{self.server.base_url}",
            CODE_WORKINGDIR=account.home,
        )
        if not has_name(account.uid):
            env.setdefault("PROMPT_COMMAND", NAME_THE_PROMPT)
        settings: dict[str, Any] = {
            "ServerApp": {
                "jpserver_extensions": {"gpusession.server": True},
                "allow_root": self.allow_root,
                # Not a login shell: /etc/profile would take the environment's folder off the PATH.
                "terminado_settings": {"shell_command": [env["SHELL"]]},
            },
        }
        return UnitOrder(
            kind="server",
            id=self.unit_id,
            account=account,
            prefix=self.prefix,
            args=list(self.get_args()),
            env=env,
            files={"jupyter_server_config.json": json.dumps(settings)},
            grace_seconds=self.save_seconds,
        )


def has_name(uid: int) -> bool:
    """Whether the machine's list of accounts knows this number."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
