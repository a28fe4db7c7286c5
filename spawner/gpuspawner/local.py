"""GpuLocalSpawner: servers on this machine, as units of the launcher.

Promises: a server runs under the person's account, without a GPU and without any secret of hub or
broker in its environment; it is found again after a restart of the hub (its id follows from user and
server, and the launcher remembers what it started); a stop gives it time to save; a start that fails
says so in one sentence, with the end of its log in Details. The page and the API are judged alike.

The address that the hub is told is checked to belong to the person's account: on a machine with
other people, a port could be taken by one of them between choosing and listening.
"""

from __future__ import annotations

import asyncio
import json
import pwd
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from traitlets import Bool, Dict, Float, Instance, Int, List, Unicode, default

from gpulease.errors import GpuhubError
from gpuspawner import choices, listening
from gpuspawner.environments import BadEnvironments
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient
from gpuspawner.launcher.protocol import Account, UnitOrder, UnitSeen
from gpuspawner.names import server_unit_id
from gpuspawner.profiles import BadProfiles, Choice, NotOnOffer, Profile, check_profiles, choose, from_form
from gpuspawner.refusals import Refusal

LOOK_SECONDS = 0.15
TRIES = 3
"""Ports that are tried when somebody else takes one in between."""


NAME_THE_PROMPT = r"PS1=${PS1//\\u/$USER}; unset PROMPT_COMMAND"
"""Where an account is a number only, bash greets with "I have no name!"; this names the person, once."""


class GpuLocalSpawner(Spawner):  # type: ignore[misc]  # jupyterhub is untyped
    """Starts, watches and stops a person's server through the launcher."""

    launcher_socket = Unicode(help="The launcher's Unix socket.").tag(config=True)
    runtime_dir = Unicode(help="Folder that holds one folder per unit; the launcher's.").tag(config=True)
    account_mode = Unicode("shared", help="shared, pam or numbered: see gpuspawner.launcher.accounts.").tag(
        config=True
    )
    homes_dir = Unicode(help="Folder of homes (shared and numbered).").tag(config=True)
    accounts_book = Unicode(help="JSON file that remembers account numbers (numbered).").tag(config=True)
    shared_uid = Int(-1, help="shared: the account's uid; -1: the hub's own.").tag(config=True)
    environments_file = Unicode(help="environments.yaml of the data folder.").tag(config=True)
    own_prefix = Unicode(help="The Python prefix that gpuhub runs in: the first environment.").tag(
        config=True
    )
    code_server = Unicode(help="Path of the code-server command; empty: VS Code is not offered.").tag(
        config=True
    )
    broker_url = Unicode(help="The broker as a server reaches it, ending before /api/v1.").tag(config=True)
    fence_seconds = Int(60, help="Handed to servers: how long a cut-off worker goes on.").tag(config=True)
    profile_list = List(Dict(), help="Overrides the environments: a profile list in KubeSpawner's form.").tag(
        config=True
    )
    save_seconds = Float(
        180.0,
        help="Seconds that a server has for saving at its stop, at least. More saves larger states; less "
        "stops sooner. The default saves some 100 GB at the speed of a good disk.",
    ).tag(config=True)
    allow_root = Bool(False, help="Servers may run as root (everybody shares root's account).").tag(
        config=True
    )

    prefix = Unicode(help="Python prefix of the chosen environment.").tag(config=True)
    editor = Unicode("lab", help="lab, vscode or notebook.").tag(config=True)

    port_chosen = Int(0)
    launcher = Instance(LauncherClient)

    @default("launcher")
    def _launcher(self) -> LauncherClient:
        return LauncherClient(self.launcher_socket)

    @default("options_form")
    def _options_form(self) -> Any:
        return _form

    @default("options_from_form")
    def _options_from_form(self) -> Any:
        return lambda form: from_form(self.profiles(), form)

    @default("apply_user_options")
    def _apply_user_options(self) -> Any:
        return _apply

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._steps: list[tuple[int, str]] = []
        self.refused: Refusal | None = None

    @property
    def unit_id(self) -> str:
        return server_unit_id(self.user.name, self.name)

    # --- what may be chosen

    def profiles(self) -> tuple[Profile, ...]:
        """The profiles on offer for this person. Raises `Refusal` where the operator's list is broken."""
        groups = {group.name for group in self.user.groups}
        try:
            if self.profile_list:
                return check_profiles(list(self.profile_list))
            return check_profiles(
                choices.profile_list(
                    Path(self.environments_file), Path(self.own_prefix), groups, vscode=bool(self.code_server)
                )
            )
        except (BadEnvironments, BadProfiles) as error:
            raise Refusal(
                "The list of environments is broken.",
                hint="Tell your operator.",
                reason="environments",
                details=str(error),
                status_code=503,
            ) from error

    def chosen(self, options: Any) -> Choice:
        try:
            return choose(self.profiles(), options or {})
        except NotOnOffer as error:
            raise Refusal(str(error), reason="options") from error

    def cards(self) -> list[dict[str, Any]]:
        """For the choice page: the profiles, with what was chosen last."""
        return choices.cards(self.profiles(), self.user_options)

    def take(self, choice: Choice) -> None:
        """Make the choice's settings this server's."""
        for name, value in choice.override.items():
            if not self.has_trait(name):
                raise Refusal(
                    "The chosen environment is not set up rightly.",
                    hint="Tell your operator.",
                    reason="environments",
                    details=f"profile {choice.profile.slug}: no setting {name}",
                    status_code=503,
                )
            setattr(self, name, value)
        self.prefix = self.prefix or self.own_prefix

    # --- JupyterHub's spawner interface

    def run_pre_spawn_hook(self) -> Any:
        refusal, self.refused = self.refused, None
        if refusal is not None:
            raise refusal
        return super().run_pre_spawn_hook()

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

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        folder = str(Path(self.runtime_dir) / self.unit_id)
        path = [str(Path(self.prefix) / "bin")]
        if self.code_server:
            path.append(str(Path(self.code_server).parent))
        path += ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        env.update(
            GPUHUB_BROKER_URL=self.broker_url,
            GPUHUB_RUNTIME_DIR=folder,
            GPUHUB_FENCE_SECONDS=str(self.fence_seconds),
            GPUHUB_SAVE_SECONDS=str(self.save_seconds),
            CUDA_VISIBLE_DEVICES="",
            NVIDIA_VISIBLE_DEVICES="void",
            JUPYTER_DEFAULT_PROVISIONER_NAME="gpuhub-provisioner",
            JUPYTER_CONFIG_PATH=folder,
            JUPYTER_RUNTIME_DIR=folder,
            JUPYTER_VSCODE_PROXY_USE_SOCKET="1",
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
                address = await self._start_on(account, _free_port())
                if address is not None:
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

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Say what happens, in plain words, until the server answers."""
        said = 0
        while True:
            while said < len(self._steps):
                share, message = self._steps[said]
                said += 1
                yield {"progress": share, "message": message}
            await asyncio.sleep(LOOK_SECONDS)

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
            self._say(5, "Making room: your last server is saving its work.")
            await self.stop()

    async def _start_on(self, account: Account, port: int) -> tuple[str, int] | None:
        self._say(10, "Preparing your home folder.")
        order = self._order(account, port)
        await self.launcher.start(order)
        self._say(30, f"Starting {self._title()}.")
        deadline = time.monotonic() + self.start_timeout
        warned = False
        while time.monotonic() < deadline:
            owner = listening.owner(port)
            if owner == account.uid:
                self.port_chosen = port
                self._say(80, "Your server is up. Opening it.")
                return "127.0.0.1", port
            unit = await self._seen()
            if unit is None or unit.phase == "exited" or unit.stopping:
                await self._give_up(unit)
            if owner is not None:
                await self.launcher.stop(self.unit_id, 1.0)
                await self._gone()
                return None
            if not warned and time.monotonic() > deadline - self.start_timeout + 10:
                warned = True
                self._say(50, "This takes longer than usual; the machine is busy.")
            await asyncio.sleep(LOOK_SECONDS)
        unit = await self._seen()
        await self.launcher.stop(self.unit_id, 1.0)
        raise Refusal(
            f"Your server did not answer within {self.start_timeout} seconds.",
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
            f"{self._title()} could not be started.",
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
        self.port, self.ip = port, "127.0.0.1"
        env = self.get_env()
        env.update(
            HOME=account.home,
            USER=account.name,
            LOGNAME=account.name,
            JUPYTERHUB_ROOT_DIR=account.home,
            JUPYTERHUB_SERVICE_URL=f"http://127.0.0.1:{port}{self.server.base_url}",
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

    def _title(self) -> str:
        editor = choices.EDITORS.get(self.editor)
        return editor.title if editor else "Your server"

    def _say(self, share: int, message: str) -> None:
        self._steps.append((share, message))


async def _form(spawner: GpuLocalSpawner) -> str:
    """Mark that there is a choice to make; the template draws it from `choices.cards`."""
    return "gpuhub"


async def _apply(spawner: GpuLocalSpawner, options: Any) -> None:
    """Judge and apply what was chosen, whether it came from the page or the API.

    A refusal is kept for `run_pre_spawn_hook`, the next step: raised here, the hub would log every
    mistyped option with a traceback.
    """
    try:
        spawner.take(spawner.chosen(options))
    except Refusal as refusal:
        spawner.refused = refusal


def has_name(uid: int) -> bool:
    """Whether the machine's list of accounts knows this number."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
