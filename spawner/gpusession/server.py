"""The Jupyter server extension: joins one person's server to the session.

Exists to put the parts together where Jupyter offers a hook, and nowhere else. Promises: every
kernel of the server goes through the session's provisioner; browsers reach the session under
``gpuhub/api/v1/`` by Jupyter's own sign-in, terminals and kernels through the private socket;
whatever stops the server, kernels are saved first, within the time that the spawner gives.

Settings come from the environment that the spawner writes: ``GPUHUB_BROKER_URL`` (the broker,
before ``/api/v1``; without it the server has no GPUs), ``JUPYTERHUB_API_TOKEN``,
``JUPYTERHUB_USER``, ``JUPYTERHUB_SERVER_NAME``, ``GPUHUB_RUNTIME_DIR`` (a folder of this server's
own), ``GPUHUB_FENCE_SECONDS``, ``GPUHUB_SAVE_SECONDS``, and ``GPUHUB_OWN_NETWORK`` (``1``: no other
account reaches the loopback of this server and its kernels, as in a pod; without it what only a port
can do is refused where other accounts could read or use it).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import getpass
import logging
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import zmq
from jupyter_server.extension.application import ExtensionApp
from tornado import web

from gpulease import errors
from gpulease.client import BrokerClient
from gpulease.scopes import SERVICE_NAME
from gpusession import api, privatesocket, promptness
from gpusession.activity import Activity
from gpusession.commands import Commands
from gpusession.history import HistoryResource
from gpusession.kernels import hosted, kernelspecs, provisioner
from gpusession.kernels.here import HerePlace
from gpusession.notices import utc_now
from gpusession.privatesocket import PrivateSocket, own_folder
from gpusession.session import Parts, Session
from gpusession.state.store import SnapshotStore
from gpusession.streams import CommandResource, CommandsResource
from gpusession.worker.link import connect, make_key

log = logging.getLogger(__name__)

SNAPSHOTS = Path(".local/share/gpuhub/snapshots")
SAVE_SECONDS = 180.0
"""The time for a stop where nobody says: the spawner's own default."""
KERNELS_END_SECONDS = 10.0
"""What is kept of the time for a stop, for kernels to end and the server to go."""
LOOK_UP_SECONDS = 1.0
"""A Jupyter server that is busy for longer does not keep a move waiting for a notebook's name."""


class GpuSession(ExtensionApp):
    """See the module."""

    name = "gpusession"
    app_name = "GPU session"
    description = "Moves this server's kernels onto GPUs and back."
    load_other_extensions = True
    extension_url = "/"

    session: Session | None = None
    private: PrivateSocket | None = None
    _broker: BrokerClient | None = None
    _saving: asyncio.Task[None] | None = None
    _env: ClassVar[Mapping[str, str]] = os.environ

    def initialize_handlers(self) -> None:
        """Put the session together and start it; Jupyter calls this before its loop runs."""
        app: Any = self.serverapp
        env = self._env
        _share_log(app.log)
        loop = app.io_loop.asyncio_loop
        if "shell_command" not in app.terminado_settings:
            # Jupyter's default is a login shell, whose /etc/profile takes ``gpu`` off the PATH.
            shell = [env.get("SHELL") or "/bin/sh"]
            app.terminado_settings = {**app.terminado_settings, "shell_command": shell}
        folder = own_folder(env.get("GPUHUB_RUNTIME_DIR"), [env.get("XDG_RUNTIME_DIR")])
        self._broker = broker_of(env)
        session = Session(
            Parts(
                server=env.get("JUPYTERHUB_SERVER_NAME", ""),
                user=env.get("JUPYTERHUB_USER") or getpass.getuser(),
                broker=self._broker,
                store=SnapshotStore(Path.home() / SNAPSHOTS),
                server_place=HerePlace(folder),
                connect=functools.partial(connect, runtime=folder),
                make_key=make_key,
                notebook_of=notebooks(app.session_manager, loop),
                now=utc_now,
                make_id=lambda: uuid.uuid4().hex,
                fence_seconds=float(env.get("GPUHUB_FENCE_SECONDS") or 60.0),
                alone=env.get("GPUHUB_OWN_NETWORK") == "1",
            )
        )
        session.start()
        self.session = session
        activity = Activity(session, app.kernel_manager, app.web_app.settings)
        self.handlers.extend(api.routes("/", session, activity))
        self.commands = asyncio.run(session.call(self._open_private(session, activity, folder, loop)))
        provisioner.attach(session)
        promptness.install(app)
        if zmq.has("curve"):
            # Anybody with an account on this machine can connect to loopback: output must not be his to read.
            app.kernel_manager.transport_encryption = "auto"
        if self._broker is not None:
            kernelspecs.offer(folder, os.environ, app.kernel_spec_manager)
        atexit.register(self._end)

    async def _open_private(
        self, session: Session, activity: Activity, folder: Path, loop: asyncio.AbstractEventLoop
    ) -> Commands:
        app: Any = self.serverapp
        user = self._env.get("JUPYTERHUB_USER") or getpass.getuser()
        private = PrivateSocket(folder, user, app.web_app.settings)
        commands = Commands(session)
        there = OnLoop(activity.report, loop)
        private.mount(api.routes("/", session, there))  # type: ignore[arg-type]  # it reports likewise
        given = {"session": session, "activity": there, "commands": commands}
        start = f"/{api.PREFIX}/commands"
        private.mount([(start, CommandsResource, given), (f"{start}/([^/]+)", CommandResource, given)])
        past = {"session": session, "activity": there, "past": self._broker}
        private.mount([(f"/{api.PREFIX}/history", HistoryResource, past)])
        private.mount(hosted.routes(session, activity))
        await private.open()
        self.private = private
        # What terminals, kernels and VS Code inherit.
        os.environ[privatesocket.VARIABLE] = str(private.path)
        os.environ["PATH"] = with_own_programs(os.environ.get("PATH", os.defpath))
        return commands

    async def stop_extension(self) -> None:
        """Save everything; Jupyter shuts kernels down only after this."""
        if self.session is None:
            return
        if self._saving is None:
            self._saving = asyncio.ensure_future(self._save(self.session))
        await asyncio.shield(self._saving)

    async def _save(self, session: Session) -> None:
        given = float(self._env.get("GPUHUB_SAVE_SECONDS") or SAVE_SECONDS)
        within = max(given - KERNELS_END_SECONDS, given * 0.5)
        log.info("saving the notebooks before the stop, within %.0f s", within)
        try:
            done, _ = await asyncio.gather(
                session.call(session.save_everything(within)),
                session.call(self.commands.hang_up_all("the server stops")),
            )
        except errors.GpuhubError as error:
            log.error("not everything was saved: %s", error.message)
            return
        for one in done:
            log.info(
                "%s: %s, %d bytes, %d kept", one.notebook or one.kernel, one.outcome, one.bytes, one.kept
            )

    def _end(self) -> None:
        """The process ends: nothing of the session stays behind."""
        session, private = self.session, self.private
        if session is None:
            return
        provisioner.detach(session)
        with contextlib.suppress(errors.GpuhubError, OSError, RuntimeError):
            if private is not None:
                asyncio.run(session.call(private.close()))
            session.stop()


class OnLoop:
    """`Activity` for the private socket: it must be asked on the Jupyter server's loop."""

    def __init__(
        self, report: Callable[[], Awaitable[dict[str, Any]]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._report, self._loop = report, loop

    async def report(self) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            return await self._report()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), self._loop))


def broker_of(env: Mapping[str, str]) -> BrokerClient | None:
    """Return the way to the broker, None where this server belongs to none."""
    token, url = env.get("JUPYTERHUB_API_TOKEN"), env.get("GPUHUB_BROKER_URL")
    if not url and env.get("JUPYTERHUB_PUBLIC_HUB_URL"):
        # A service of the hub is found beside it.
        url = env["JUPYTERHUB_PUBLIC_HUB_URL"].rstrip("/").removesuffix("/hub") + f"/services/{SERVICE_NAME}"
    if not url or not token:
        log.info("no GPU service is known to this server")
        return None
    return BrokerClient(url, token)


def notebooks(sessions: Any, loop: asyncio.AbstractEventLoop) -> Callable[[str], Awaitable[str | None]]:
    """Return a look-up of a kernel's notebook, to be called on any loop but Jupyter's."""

    async def find(kernel_id: str) -> str | None:
        try:
            model = await sessions.get_session(kernel_id=kernel_id)
        except web.HTTPError:
            return None
        return str(model["path"]) if model.get("type") == "notebook" and model.get("path") else None

    async def look_up(kernel_id: str) -> str | None:
        work = find(kernel_id)
        try:
            asked = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the server has ended
            work.close()
            return None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), LOOK_UP_SECONDS)
        except TimeoutError:
            return None

    return look_up


def with_own_programs(path: str) -> str:
    """Return a PATH on which ``gpu`` is found."""
    own = str(Path(sys.executable).parent)
    return path if own in path.split(":") else f"{own}:{path}"


def _share_log(server: logging.Logger) -> None:
    """What the session says goes where the server's own words go."""
    ours = logging.getLogger("gpusession")
    ours.setLevel(server.level)
    for handler in server.handlers:
        ours.addHandler(handler)
    ours.propagate = not server.handlers


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "gpusession.server", "app": GpuSession}]
