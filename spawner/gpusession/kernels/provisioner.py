"""How Jupyter starts, signals and ends kernels that can move.

Exists as the thin seam to jupyter_client: a kernel manager keeps one provisioner for the kernel's
life, and this one keeps the relay. Promises: kernel id, connection file and ports stay the same
whatever moves, restarts or crashes behind them; `poll` says alive while the session moves or
recovers the kernel, so that Jupyter's restarter never starts a second one; a restart stays where
the kernel is; a crash is told from a person's restart (Jupyter's restarter never sends a shutdown
request, people's restarts always do).

Without a session in this process (nbclient, papermill, a console) it is Jupyter's local
provisioner, or asks the server to host the kernel: see `standin`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
import uuid
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, Protocol

import zmq
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.localinterfaces import is_local_ip
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from gpulease import errors
from gpusession.kernels import argv as commandline
from gpusession.kernels import standin
from gpusession.kernels.autogpu import Asking, AutoGpu, wants_gpu
from gpusession.kernels.environment import for_cells
from gpusession.kernels.life import OPEN_PORTS, death, start
from gpusession.kernels.ports import Cause, KernelCommand, KernelHost
from gpusession.kernels.relay import Relay
from gpusession.kernels.sockets import ORDER, Address

log = logging.getLogger(__name__)

NAME = "gpuhub-provisioner"

POLL_SECONDS = 0.05


class Attachable(KernelHost, Asking, Protocol):
    """What is attached: `gpusession.session.Session`."""

    async def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the session's loop and await it from another one."""


_attached: tuple[Attachable, str] | None = None
"""The session of this process, and what was Jupyter's default provisioner before."""


def attach(session: Attachable) -> None:
    """From now on kernels of this process belong to the session; ours is the default provisioner.

    To be called once the session runs, before the first kernel starts. Kernels that were started
    stay with their session, so end the session only after Jupyter has ended its kernels.
    """
    global _attached
    factory = KernelProvisionerFactory.instance()
    _attached = session, factory.default_provisioner_name
    factory.default_provisioner_name = NAME


def detach(session: Attachable | None = None) -> None:
    """Undo `attach` (of this session, or of any): kernels started from now on are plain local ones."""
    global _attached
    if _attached is not None and session in (None, _attached[0]):
        KernelProvisionerFactory.instance().default_provisioner_name = _attached[1]
        _attached = None


class GpuProvisioner(LocalProvisioner):
    """See the module."""

    _session: Attachable | None = None
    _relay: Relay | None = None
    _auto: AutoGpu | None = None
    _alive = False
    _starting = False
    _stopping = False
    """A person shuts it down or restarts it."""
    _death_reported = False
    _failed: int | None = None
    _transport: Literal["ipc", "tcp"] = "ipc"
    """What its processes turned out to speak."""
    _sockets: Path | None = None
    """The folder of a kernel that listens on Unix sockets without a session."""

    # --- starting

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        if self._session is None and not super().has_process and _attached is not None:
            self._session = _attached[0]
        if self._session is None:
            self._keep_private(self.parent)
            return standin.wrap(await super().pre_launch(**kwargs))
        manager = self.parent
        extra = kwargs.pop("extra_arguments", [])
        curve = _curve(manager, kwargs.pop("transport_encryption", None))
        if self._relay is None:
            self._relay = await asyncio.to_thread(self._bind, manager, curve)
        elif manager.transport == "ipc":
            await self._session.call(self._relay.bind_again())
        for channel, port in self._relay.ports.items():
            setattr(manager, f"{channel}_port", port)
        manager.write_connection_file(jupyter_session=kwargs.get("env", {}).get("JPY_SESSION_NAME", ""))
        self.connection_info = manager.get_connection_info()
        kwargs["cmd"] = manager.format_kernel_cmd(extra_arguments=extra)
        return await KernelProvisionerBase.pre_launch(self, **kwargs)

    def _keep_private(self, manager: Any) -> None:
        """Of other programs' kernels too, no other account of the machine may read what they print.

        Encrypted where the kernel can; else IPython's listens on Unix sockets. Others stay as they are.
        """
        if zmq.has("curve") and getattr(manager, "transport_encryption", "") == "disabled":
            manager.transport_encryption = "auto"  # "disabled" is the default of every such program
        can_encrypt = getattr(manager, "_kernel_supports_curve_encryption", lambda: False)
        if zmq.has("curve") and can_encrypt():
            return
        wished = any(getattr(manager, f"{channel}_port") for channel in ORDER)
        if manager.transport == "tcp" and not wished and commandline.is_ipython(self.kernel_spec.argv):
            self._sockets = Path(tempfile.mkdtemp(prefix="gpuhub-"))
            manager.transport, manager.ip = "ipc", str(self._sockets / "k")

    def _bind(self, manager: Any, curve: tuple[bytes, bytes] | None) -> Relay:
        if manager.transport == "tcp" and not is_local_ip(manager.ip):
            raise RuntimeError(f"A kernel's address must be of this machine; {manager.ip} is not.")
        wanted = {channel: getattr(manager, f"{channel}_port") for channel in ORDER}
        address = Address(manager.ip, manager.transport, wanted, curve)
        return Relay(
            self.kernel_id,
            address,
            manager.session.key,
            make_id=lambda: uuid.uuid4().hex,
            has_agent=commandline.resolve(self.kernel_spec.argv)[1],
            alone=self._session is not None and self._session.alone,
        )

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        if self._session is None:
            return await super().launch_kernel(cmd, **kwargs)
        relay = self._need_relay()
        command = await asyncio.to_thread(self._command, cmd, kwargs)
        cause: Cause = "start"
        if relay.running is not None or self._failed is not None:
            cause = "crash" if self._death_reported and not self._stopping else "restart"
        self._starting, self._alive, self._failed = True, True, None
        try:
            if cause == "start" and wants_gpu(self.kernel_spec):
                self._auto = AutoGpu(relay, self._session)
            done = await self._session.call(start(relay, self._session, command, cause))
            self._transport = done.transport
            if cause == "start" and self._auto is not None:
                await self._session.call(self._auto.begin())
        except (errors.GpuhubError, OSError, TimeoutError) as error:
            if cause == "start":
                await self._give_up()
                raise RuntimeError(_sentence(error)) from error
            # Jupyter's restarter counts on a start that "succeeds" and a kernel that is found dead.
            log.error("kernel %s could not be started again: %s", self.kernel_id, _sentence(error))
            self._failed = 1
        except BaseException:
            await self._give_up()
            raise
        finally:
            self._starting = self._stopping = self._death_reported = False
        self.pid = relay.running.pid if relay.running is not None else None
        self.cwd = command.cwd
        return self.connection_info

    def _command(self, cmd: list[str], kwargs: dict[str, Any]) -> KernelCommand:
        file = os.path.realpath(self.parent.connection_file)
        argv, agent = commandline.resolve([part.replace(file, "{connection_file}") for part in cmd])
        env = for_cells(kwargs["env"], NAME if agent else None)
        env["GPUHUB_KERNEL_ID"] = self.kernel_id
        env["GPUHUB_KERNEL_NAME"] = self.parent.kernel_name
        if self._session is not None:
            env["GPUHUB_SNAPSHOTS"] = str(Path(self._session.snapshots).absolute())
        if notebook := _notebook(env.get("JPY_SESSION_NAME", ""), self.parent.parent):
            env["GPUHUB_NOTEBOOK"] = notebook
        env.setdefault("PYTHONHASHSEED", _hash_seed(notebook or self.kernel_id))
        return KernelCommand(
            kernel_id=self.kernel_id,
            argv=argv,
            env=env,
            cwd=os.path.abspath(kwargs.get("cwd") or os.getcwd()),
            key=self.parent.session.key,
            language=self.kernel_spec.language or "",
            agent=agent,
            transport=self._transport,
            open_ports=_open_ports(self.kernel_spec),
        )

    async def _give_up(self) -> None:
        self._alive = False
        relay, self._relay = self._relay, None
        if relay is not None:
            await asyncio.to_thread(relay.close_now)

    # --- looking

    @property
    def has_process(self) -> bool:
        return super().has_process if self._session is None else self._alive

    async def poll(self) -> int | None:
        if self._session is None:
            return await super().poll()
        if not self._alive or self._relay is None:
            return 0
        if self._starting:
            return None
        status = self._failed
        if status is None:
            status = await death(self._relay, self._session, stopping=self._stopping)
        if status is not None and not self._stopping:
            self._death_reported = True
        return status

    async def wait(self) -> int | None:
        if self._session is None:
            return await super().wait()
        while True:
            status = await self.poll()
            if status is not None:
                self._alive = False
                return status
            await asyncio.sleep(POLL_SECONDS)

    # --- ending

    async def shutdown_requested(self, restart: bool = False) -> None:
        if self._session is not None:
            await self._stop()

    async def _stop(self) -> None:
        """A person wants it ended: the coming end of its process is no crash."""
        assert self._session is not None
        self._stopping = True
        await self._on_session(self._told_to_stop())

    async def _told_to_stop(self) -> None:
        assert self._session is not None
        self._session.stopping(self.kernel_id)
        if self._relay is not None:
            await self._relay.abandon()

    async def send_signal(self, signum: int) -> None:
        if self._session is None:
            await super().send_signal(signum)
        elif signum == signal.SIGKILL:
            await self.kill()
        elif self._relay is not None and signum:
            await self._on_session(self._signal(signum))

    async def _signal(self, signum: int) -> None:
        relay = self._need_relay()
        if signum == signal.SIGINT:
            await relay.interrupt()
        elif relay.running is not None:
            await relay.running.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        if self._session is None:
            await super().kill(restart=restart)
            return
        if not self._death_reported and not self._stopping:
            await self._stop()
        await self._on_session(self._kill())

    async def terminate(self, restart: bool = False) -> None:
        if self._session is None:
            await super().terminate(restart=restart)
        elif self._relay is not None and self._relay.has_agent:
            # For our kernel SIGTERM means "save yourself": nobody wants that of what he shuts down.
            await self.kill(restart=restart)
        else:
            await self.send_signal(signal.SIGTERM)

    async def _kill(self) -> None:
        if self._relay is not None and self._relay.running is not None:
            await self._relay.running.kill()

    async def cleanup(self, restart: bool = False) -> None:
        if self._session is None:
            await super().cleanup(restart=restart)
            if self._sockets is not None and not restart:
                shutil.rmtree(self._sockets, ignore_errors=True)
        elif not restart:
            self._alive, relay, self._relay = False, self._relay, None
            if relay is not None:
                await self._on_session(self._close(relay))
                await asyncio.to_thread(relay.close_now)

    async def _close(self, relay: Relay) -> None:
        assert self._session is not None
        if self._auto is not None:
            await self._auto.end()
        await self._session.closed(self.kernel_id)
        if relay.running is not None:
            await relay.running.kill()

    # --- small things

    def _need_relay(self) -> Relay:
        if self._relay is None:
            raise RuntimeError("This kernel is not running.")
        return self._relay

    async def _on_session(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run on the session's loop; a session that has ended has ended its processes too."""
        assert self._session is not None
        try:
            await self._session.call(work)
        except errors.Unavailable as error:
            log.debug("kernel %s: %s", self.kernel_id, error)


def _curve(manager: Any, wanted: str | None) -> tuple[bytes, bytes] | None:
    """Return the keys of an encrypted address. The relay speaks it whatever the kernel can."""
    wanted = wanted or getattr(manager, "transport_encryption", "disabled")
    if wanted not in ("auto", "required") or manager.transport not in ("tcp", "ipc"):
        return None
    if manager.curve_publickey is None:
        manager.curve_publickey, manager.curve_secretkey = zmq.curve_keypair()
    return manager.curve_publickey, manager.curve_secretkey


def _notebook(session_name: str, managers: Any) -> str | None:
    """The notebook's path relative to the server's root, from the name that Jupyter gives a session."""
    root = getattr(managers, "root_dir", "")
    if not session_name or not root:
        return session_name or None
    relative = os.path.relpath(session_name, root) if os.path.isabs(session_name) else session_name
    return None if relative.startswith("..") else relative


def _open_ports(kernel_spec: Any) -> bool:
    ours = (kernel_spec.metadata or {}).get("gpuhub")
    return isinstance(ours, dict) and ours.get(OPEN_PORTS) is True


def _sentence(error: BaseException) -> str:
    hint = error.hint if isinstance(error, errors.GpuhubError) else None
    return f"{error} {hint or ''}".strip() or "The kernel did not answer in time."


def _hash_seed(notebook: str) -> str:
    """One seed for all processes of a notebook: sets keep their order, and objects the hashes they stored."""
    return str(zlib.crc32(notebook.encode("utf-8", "surrogatepass")))
