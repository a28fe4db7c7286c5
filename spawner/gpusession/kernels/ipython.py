"""IPython's kernel as we run it: lossless output, our agent inside, and a state that survives SIGTERM.

Exists because stock ipykernel drops output silently under load, and because a kernel must be able
to save itself when nobody is left to ask it to. Promises: output is bounded by nobody's high-water
mark (the relay bounds it, visibly); requests of the session are answered through
`gpusession.state.agent`; the debugger listens nowhere (`debugging`); told to stop (SIGTERM), it
interrupts a running cell, saves to ``$GPUHUB_SNAPSHOTS`` and ends.
Run as ``python -m gpusession.kernels.ipython -f CONNECTION_FILE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zmq
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from traitlets import Dict, Type

from gpulease.errors import GpuhubError
from gpusession.kernels.ownlog import KernelHandler
from gpusession.state import replay_ledger
from gpusession.state.agent import StateAgent, told
from gpusession.state.magic import GpuStateMagics

PROGRESS_SECONDS = 0.1
INTERRUPT_AGAIN_SECONDS = 2.0


class GpuhubKernel(IPythonKernel):
    """An IPython kernel with the agent's message type, on shell (between cells) and on control."""

    debugger_class = Type("gpusession.kernels.debugging.PrivateDebugger")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if (debugger := getattr(self, "debugger", None)) is not None:
            debugger.between_cells = self._between_cells
        self.shell_handlers["gpuhub_request"] = self.control_handlers["gpuhub_request"] = self.gpuhub_request
        replay_ledger.of(self.shell).follow(self.shell)
        self._agent = StateAgent(self.shell, now=_now, make_id=_make_id)
        self._notebook = os.environ.get("GPUHUB_NOTEBOOK") or os.environ.get("JPY_SESSION_NAME") or None
        if folder := os.environ.get("GPUHUB_SNAPSHOTS"):
            self.shell.register_magics(GpuStateMagics(self.shell, self._agent, Path(folder), self._meta))
        self._touched = False
        self._stopping = self._saving = False

    def _meta(self) -> dict[str, Any]:
        """What a manifest should say of this notebook."""
        return {
            "kernel": os.environ.get("GPUHUB_KERNEL_ID", ""),
            "notebook": self._notebook,
            "name": os.environ.get("GPUHUB_KERNEL_NAME", ""),
        }

    async def gpuhub_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        content = parent["content"]
        meta = content.get("meta")
        if isinstance(meta, dict) and meta.get("notebook"):
            self._notebook = meta["notebook"]
        reply = self._handled(str(content.get("op", "")), content, parent)
        self.session.send(stream, "gpuhub_reply", reply, parent, ident)

    def _handled(self, op: str, content: dict[str, Any], parent: dict[str, Any] | None) -> dict[str, Any]:
        self._touched = self._touched or op == "load"
        try:
            answer = self._agent.handle(op, content, self._progress(parent))
        except (GpuhubError, KeyboardInterrupt) as error:
            return told(error)
        except Exception as error:
            self.log.exception("the agent failed at %s", op)
            return told(error)
        return {"status": "ok", **answer}

    def _progress(self, parent: dict[str, Any] | None) -> Any:
        said = float("-inf")

        def progress(done: int, total: int | None) -> None:
            nonlocal said
            now = time.monotonic()
            if parent is not None and (now - said >= PROGRESS_SECONDS or done == total):
                said = now
                body = {"done": done, "total": total}
                self.session.send(self.iopub_socket, "gpuhub_progress", body, parent=parent)

        return progress

    def set_parent(self, ident: Any, parent: Any, channel: str = "shell") -> None:
        if channel == "shell" and parent.get("header", {}).get("msg_type") == "gpuhub_request":
            # Not the shell's parent: what the person's own threads print belongs under his cells.
            Kernel.set_parent(self, ident, parent, channel)
        else:
            super().set_parent(ident, parent, channel)

    async def dispatch_shell(self, msg: Any, *args: Any, **more: Any) -> None:
        before = self.get_parent("shell"), self._get_shell_context_var(self._shell_parent_ident)
        await super().dispatch_shell(msg, *args, **more)
        kind = self.get_parent("shell").get("header", {}).get("msg_type")
        if kind == "gpuhub_request":
            self.set_parent(before[1], before[0], channel="shell")
        elif kind == "execute_request":
            self._touched = True

    def _between_cells(self, work: Callable[[], None]) -> Awaitable[None]:
        """From another thread's loop: run ``work`` in the main thread while nothing runs there."""

        async def run() -> None:
            async with self._main_asyncio_lock:
                work()

        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self.io_loop.asyncio_loop))

    # --- told to stop

    def told_to_stop(self) -> None:
        """From the signal handler, in the main thread, wherever that is at the moment."""
        if self._stopping:
            return
        self._stopping = True
        loop: asyncio.AbstractEventLoop = self.io_loop.asyncio_loop
        loop.call_soon_threadsafe(lambda: loop.create_task(self._save_and_end()))
        threading.Thread(target=self._interrupt_again, daemon=True).start()
        # Ignored when nothing runs; a running cell gets its KeyboardInterrupt, an awaiting one is cancelled.
        signal.raise_signal(signal.SIGINT)

    def _interrupt_again(self) -> None:
        while True:
            time.sleep(INTERRUPT_AGAIN_SECONDS)
            if self._saving:
                return
            os.kill(os.getpid(), signal.SIGINT)

    async def _save_and_end(self) -> None:
        async with self._main_asyncio_lock:
            self._saving = True
            folder = os.environ.get("GPUHUB_SNAPSHOTS")
            if folder and self._touched:
                meta = {**self._meta(), "reason": "worker-stop"}
                saved = self._handled("save", {"folder": folder, "meta": meta, "accept": "all"}, None)
                if saved["status"] != "ok":
                    self.log.error("the state could not be saved: %s", saved["message"])
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            with contextlib.suppress(Exception):
                self.shell.atexit_operations()  # IPython's history
            logging.shutdown()
            os._exit(0)


class GpuhubKernelApp(IPKernelApp):
    """IPython's kernel application with our kernel in it."""

    name = "gpuhub-kernel"
    kernel_class = GpuhubKernel

    logging_config = Dict({"handlers": {"console": {"class": "gpusession.kernels.ownlog.KernelHandler"}}})

    def configure_tornado_logger(self) -> None:
        """As ipykernel does (else tornado sets up the root logger), with a handler known as ours."""
        handler = KernelHandler()
        handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
        logging.getLogger("tornado").addHandler(handler)

    def _bind_socket(self, s: Any, port: int) -> Any:
        if s.getsockopt(zmq.TYPE) == zmq.XPUB:
            s.setsockopt(zmq.SNDHWM, 0)
        return super()._bind_socket(s, port)

    def log_connection_info(self) -> None:
        """Keep the ports; the advice to connect "another client" is for people who started it by hand."""
        channels = ("shell", "iopub", "stdin", "hb", "control")
        self._ports = {name: getattr(self, f"{name}_port") for name in channels}

    def init_signal(self) -> None:
        super().init_signal()
        signal.signal(signal.SIGTERM, self._terminated)
        _children_just_end()

    def _terminated(self, *_: Any) -> None:
        if self.kernel is None or not hasattr(self.kernel, "io_loop"):
            os._exit(0)
        self.kernel.told_to_stop()


def _children_just_end() -> None:
    """A forked child (multiprocessing's, say) that is told to stop must stop, and not save.

    SIGTERM is blocked around the fork: one that is sent to the child before it has forgotten our
    handler would else be lost.
    """
    masks: dict[int, set[Any]] = {}

    def before() -> None:
        masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(threading.get_ident(), set()))

    def in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


def _now() -> datetime:
    return datetime.now(UTC)


def _make_id() -> str:
    return uuid.uuid4().hex


if __name__ == "__main__":
    # Under its own name: the person's namespace becomes __main__, and nothing of ours is his.
    from gpusession.kernels.ipython import GpuhubKernelApp as Application

    Application.launch_instance()
