"""A private socket that answers what it was told to: real HTTP over a real Unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Answer = tuple[int, Any]


class AnswersAsTold:
    """``answers`` maps "METHOD path" to (status, body), or to a function of the request's body."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gpu.sock"
        self.answers: dict[str, Answer | Callable[[Any], Answer]] = {}
        self.events: list[tuple[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                what = f"{self.command} {self.path.removeprefix('/gpuhub/api/v1/')}"
                outer.asked.append((what, body))
                if what == "GET events":
                    self._stream()
                    return
                answer = outer.answers.get(what, (404, error("not-found", "There is no such thing here.")))
                status, data = answer(body) if callable(answer) else answer
                raw = b"" if data is None else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _stream(self) -> None:
                self.send_response(200)
                self.end_headers()
                for kind, data in outer.events:
                    self.wfile.write(f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode())

            do_GET = do_POST = do_PUT = do_DELETE = _reply

            def log_message(self, *_: Any) -> None:
                pass

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(self.path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def error(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "hint": "Do something.", "details": details}


def pool(**more: Any) -> dict[str, Any]:
    facts = {"sharing": "exclusive", "simulated": True, "total": 2, "free": 1, "waiting": 0}
    return {"name": "sim", "title": "simulated GPU", "memory_bytes": 8_000_000_000, **facts, **more}


def lease(**more: Any) -> dict[str, Any]:
    device = {"id": "SIM-0", "index": 0, "name": "simulated GPU", "memory_bytes": 8e9, "simulated": True}
    times = {"created_at": "2026-07-14T13:19:00+00:00", "active_at": "2026-07-14T13:20:00+00:00"}
    facts = {"user": "ann", "server": "", "pool": "sim", "gpus": 1, "state": "active", "devices": [device]}
    return {"id": "7f3c0000", "revision": 1, "message": "", **times, **facts, **more}


def kernel(**more: Any) -> dict[str, Any]:
    facts = {"name": "python3", "notebook": "train.ipynb", "placement": "server", "move": None}
    return {"id": "k1", "notices": [], "last_verdict": [], **facts, **more}


def status(**more: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"server": "", "user": "ann", "lease": None, "broker": "ok", "commands": []}
    return {**facts, "kernels": [], "pools": [pool()], "quotas": [], **more}
