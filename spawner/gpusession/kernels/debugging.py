"""The debugger of our IPython kernel: ipykernel's, reached by nobody but the kernel itself.

Exists because ipykernel lets debugpy listen on loopback without a password, where every account of
the machine can run code in the kernel. Promises: nothing listens while a notebook is debugged. (For
the moment in which pydevd, which can only connect, connects to its own process, there is one port;
whoever else connects to it is hung up on before a byte is read.) Cells that are written to files for
breakpoints go into a folder that only this account can look into. What cannot be made safe is
refused, with a sentence. Debugging covers the kernel's process, not processes that it starts.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipykernel.compiler import get_tmp_directory
from ipykernel.debugger import Debugger, DebugpyClient, DebugpyMessageQueue
from tornado.locks import Event

from gpusession.kernels import debugadapter
from gpusession.kernels.debugsession import refused

BUSY_SECONDS = 5.0
"""How long a start of the debugger waits for the running cell; meanwhile the kernel hears no interrupt."""

ACCEPT_SECONDS = 5.0

NOT_ON = "The debugger is not on. A notebook that has moved or was restarted needs it started again."
BUSY = "A cell is running. Start the debugger when it is done."
LOST = "The debugger ended unexpectedly. Start it again."


class CannotDebug(Exception):
    """Why, as a sentence."""


class PrivateDebugger(Debugger):
    """ipykernel's debugger, over sockets without addresses."""

    between_cells: Callable[[Callable[[], None]], Awaitable[None]]
    """Runs something in the main thread while no cell runs; set by the kernel."""

    def __init__(self, log: Any, debugpy_stream: Any, event_callback: Any, *args: Any, **more: Any) -> None:
        super().__init__(log, debugpy_stream, event_callback, *args, **more)
        self.debugpy_client = Client(log, self._handle_event, self._lost)
        self._adapter: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    async def process_request(self, message: dict[str, Any]) -> dict[str, Any]:
        command = message.get("command")
        if command == "initialize" and not self.is_started:
            try:
                await self._open()
            except CannotDebug as error:
                return refused(message, str(error))
            except Exception:
                self.log.exception("the debugger did not start")
                return refused(message, "The debugger could not be started; the server's log says why.")
        elif not (self.is_started or command == "disconnect" or command in self.static_debug_handlers):
            return refused(message, NOT_ON)
        try:
            answer: dict[str, Any] = await super().process_request(message)
        except Exception:
            # Without an answer the client would wait for ever.
            self.log.exception("the debugger failed at %s", command)
            return refused(message, "The debugger could not do this; the server's log says why.")
        return answer

    async def handle_stopped_event(self) -> None:
        try:
            await super().handle_stopped_event()
        except Exception:
            # The loop around this must go on, or no later stop would be told.
            self.log.exception("a stop of the debugger could not be told")

    async def _open(self) -> None:
        make_own_folder(Path(get_tmp_directory()))
        if self._adapter is None or self._adapter.poll() is not None:
            self._start_adapter()
            try:
                await asyncio.wait_for(self.between_cells(self._attach), BUSY_SECONDS)
            except TimeoutError as error:
                raise CannotDebug(BUSY) from error
            finally:
                if not self.debugpy_initialized:
                    self.end_adapter()
        await self.debugpy_client.open(lambda theirs: self._hand_over(debugadapter.CLIENT, theirs))

    def _start_adapter(self) -> None:
        import debugpy

        self.debugpy_initialized = False
        ours, theirs = socket.socketpair()
        folder = os.path.dirname(os.path.dirname(debugpy.__file__))
        with theirs:
            self._adapter = subprocess.Popen(
                [sys.executable, "-I", os.path.abspath(debugadapter.__file__), str(theirs.fileno()), folder],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # interrupts are meant for cells
            )
        self._control = ours

    def _attach(self) -> None:
        """In the main thread: trace it, and give the adapter the way to what traces it."""
        with connect_pydevd() as theirs:
            self._hand_over(debugadapter.DEBUGGEE, theirs)
        self.debugpy_initialized = True

    def _hand_over(self, what: bytes, theirs: socket.socket) -> None:
        assert self._control is not None
        socket.send_fds(self._control, [what], [theirs.fileno()])

    def end_adapter(self) -> None:
        """End the adapter's process, if there is one."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._adapter is not None:
            self._adapter.kill()
            self._adapter.wait()
            self._adapter = None

    def _lost(self) -> None:
        """The adapter hung up without being asked to: say so, as at any other end."""
        self.log.warning("the debugger's adapter has ended")
        self.stop()
        self.end_adapter()
        self.is_started = False
        self.breakpoint_list = {}
        self.stopped_threads = set()
        self.event_callback({"type": "event", "event": "terminated", "seq": 0, "body": {}})


class Client(DebugpyClient):
    """ipykernel's side of the adapter, over one half of a pair of sockets."""

    def __init__(self, log: Any, event_callback: Callable[[dict[str, Any]], None], lost: Any) -> None:
        super().__init__(log, None, event_callback)
        self._on_lost = lost
        self._line: Line | None = None
        self._waiting = 0
        self._leaving = False

    def get_host_port(self) -> tuple[str, int]:
        """What an attach request names; the adapter has its debuggee already and does not look at it."""
        return self.debugpy_host, 0

    async def open(self, introduce: Callable[[socket.socket], None]) -> None:
        """Begin a session with the adapter that ``introduce`` gives the other half of the pair to."""
        ours, theirs = socket.socketpair()
        with theirs:
            introduce(theirs)
        self.message_queue = DebugpyMessageQueue(self._forward_event, self.log)
        self._leaving = False
        loop = asyncio.get_running_loop()
        _, self._line = await loop.create_unix_connection(lambda: Line(self), sock=ours)

    def connect_tcp_socket(self) -> None:
        """Nothing is left to do: see `open`."""

    def disconnect_tcp_socket(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
        self.init_event = Event()
        self.init_event_seq = -1
        self.wait_for_attach = True

    def _send_request(self, msg: dict[str, Any]) -> None:
        if self._line is None:
            raise CannotDebug(NOT_ON)
        self._leaving = msg.get("command") == "disconnect"
        content = json.dumps(msg, allow_nan=False).encode()
        self._line.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))

    async def send_dap_request(self, msg: dict[str, Any]) -> dict[str, Any]:
        self._waiting += 1
        try:
            answer: dict[str, Any] = await super().send_dap_request(msg)
        except CannotDebug as error:
            answer = refused(msg, str(error))
        finally:
            self._waiting -= 1
        return answer

    def hung_up(self, line: Line) -> None:
        """The adapter is gone; after a goodbye that is as it should be."""
        if line is not self._line or self._leaving:
            return
        self._line = None
        for _ in range(self._waiting + 1 if self._waiting else 0):
            self.message_queue.message_queue.put_nowait(refused({}, LOST))
        self.init_event.set()
        self._on_lost()


class Line(asyncio.Protocol):
    def __init__(self, client: Client) -> None:
        self._client = client
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._client.receive_dap_frame(self._decoder.decode(data))

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.hung_up(self)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def make_own_folder(folder: Path) -> None:
    """Make a folder in a place where everybody may write, or refuse what somebody else put there.

    Raises CannotDebug: cells would be written where another account reads them, or over what it names.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise CannotDebug(
                f"Debugging needs the folder {folder}, but it belongs to somebody else."
            ) from None
    folder.chmod(0o700)


def connect_pydevd() -> socket.socket:
    """Trace this thread and those to come; return the socket at whose other end pydevd is.

    pydevd only knows how to connect to a port, so there is one here for a moment. Only the connection
    whose other end is a file of this very process is taken. Raises CannotDebug.
    """
    import debugpy  # it is what puts pydevd on the path
    import pydevd

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        pydevd.settrace(
            host=address[0],
            port=address[1],
            suspend=False,
            patch_multiprocessing=False,  # a child would connect to a port that may be anybody's by then
            wait_for_ready_to_run=False,
            notify_stdin=False,
            dont_trace_start_patterns=(os.path.dirname(os.path.abspath(debugpy.__file__)),),
            dont_trace_end_patterns=("debugpy_launcher.py",),
        )
        own = _own_ends(address)
        if not own:
            raise CannotDebug("Another debugger is at work in this kernel. Restart it to use this one.")
        listener.settimeout(ACCEPT_SECONDS)
        while True:
            taken, peer = listener.accept()
            if peer in own:
                taken.settimeout(None)
                return taken
            taken.close()


def _own_ends(address: tuple[str, int]) -> set[Any]:
    """Return the local addresses of this process's own connections to ``address``."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family == socket.AF_INET and one.getpeername() == address:
                    found.add(one.getsockname())
        except OSError:
            continue
    return found
