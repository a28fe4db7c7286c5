"""``python -m gpusession.worker --dir FOLDER [--keys FOLDER] [--listen unix:PATH | tcp:HOST:PORT]``

The keys' folder (the same one, or a mount that the worker cannot write) holds ``host_key`` (private,
OpenSSH) and ``authorized_key``. The worker says that it is ready by ``ready.json`` in its own folder:
``{"address": …}``. SIGTERM ends it within its grace, saving first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncssh

from gpulease.errors import GpuhubError
from gpusession.kernels.launch import PATH_BYTES
from gpusession.worker.descendants import become_subreaper, reset_signals
from gpusession.worker.protocol import TcpAddress, UnixAddress, read_address
from gpusession.worker.server import Door
from gpusession.worker.sockets import bound
from gpusession.worker.work import Work

log = logging.getLogger("gpusession.worker")

DEFAULT_FENCE_SECONDS = 60.0
DEFAULT_GRACE_SECONDS = 60.0
LONGEST_BELOW = len("/run/k999999/k-5")
"""What is added to the folder's path for a kernel's socket."""


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="gpusession.worker", description="Holds a lease's GPUs.")
    parser.add_argument("--dir", type=Path, required=True, help="the worker's own folder")
    parser.add_argument("--keys", type=Path, help="folder with host_key and authorized_key; default: DIR")
    parser.add_argument("--listen", help="unix:PATH or tcp:HOST:PORT (port 0: any); default: DIR/ssh")
    options = parser.parse_args(arguments)
    _log_lines()
    os.umask(0o077)
    reset_signals()
    become_subreaper()
    folder = Path(os.path.abspath(options.dir))
    keys = Path(os.path.abspath(options.keys)) if options.keys else folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = read_address(options.listen or f"unix:{folder}/ssh")
        host_key = asyncssh.read_private_key(keys / "host_key")
        fence_seconds = float(environment.get("GPUHUB_FENCE_SECONDS", DEFAULT_FENCE_SECONDS))
        grace_seconds = float(environment.get("GPUHUB_GRACE_SECONDS", DEFAULT_GRACE_SECONDS))
    except (GpuhubError, OSError, asyncssh.KeyImportError, ValueError) as error:
        log.error("the worker cannot start: %s", error)
        return 1
    runtime = make_runtime(folder)
    work = Work(
        runtime,
        environment,
        fence_seconds=fence_seconds,
        grace_seconds=grace_seconds,
        clock=time.monotonic,
    )
    try:
        asyncio.run(serve(folder, keys, address, host_key, work, runtime))
    except OSError as error:
        log.error("the worker cannot listen: %s", error)
        return 1
    finally:
        shutil.rmtree(runtime, ignore_errors=True)
    return 0


def make_runtime(folder: Path) -> Path:
    """Make the folder of kernels' sockets: below ours where the path is short enough, else elsewhere."""
    if len(os.fsencode(folder)) + LONGEST_BELOW > PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix="gpuhub-worker-"))
    runtime = folder / "run"
    shutil.rmtree(runtime, ignore_errors=True)
    runtime.mkdir(mode=0o700)
    return runtime


async def serve(
    folder: Path,
    keys: Path,
    address: UnixAddress | TcpAddress,
    host_key: asyncssh.SSHKey,
    work: Work,
    runtime: Path,
) -> None:
    """Serve until SIGTERM or SIGINT, then end everything."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    door = Door(work, runtime, keys / "authorized_key", mounted=keys != folder)
    options = door.options(host_key)
    if isinstance(address, UnixAddress):
        acceptor = await asyncssh.listen(sock=bound(Path(address.path)), **options)
        reached = f"unix:{address.path}"
    else:
        acceptor = await asyncssh.listen(address.host, address.port, **options)
        host = f"[{address.host}]" if ":" in address.host else address.host
        reached = f"tcp:{host}:{acceptor.get_port()}"
    looking = loop.create_task(work.look_after())
    say_ready(folder, {"address": reached})
    log.info("ready", extra={"address": reached})
    await told.wait()
    log.info("told to end")
    acceptor.close()
    await work.end()
    looking.cancel()
    door.close()
    if isinstance(address, UnixAddress):
        with contextlib.suppress(OSError):
            os.unlink(address.path)
    log.info("ended")


def say_ready(folder: Path, content: dict[str, Any]) -> None:
    aside = folder / f".ready-{os.getpid()}"
    aside.write_text(json.dumps(content))
    aside.replace(folder / "ready.json")


class _Lines(logging.Formatter):
    """JSON, a line each."""

    _KEYS = ("target", "pid", "status", "address", "kernels", "seconds")

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **{key: getattr(record, key) for key in self._KEYS if hasattr(record, key)},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_lines() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncssh").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
