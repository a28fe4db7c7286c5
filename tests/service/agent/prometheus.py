"""A Prometheus as far as instant queries go: an HTTP server over the text that dcgm-exporter serves.

Understands the two forms that gpuhub asks: ``{__name__=~"A|B",UUID!=""}`` and ``timestamp(A{UUID!=""})``.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

EXPORTER = {
    "namespace": "gpu-operator",
    "pod": "dcgm-exporter-x7k2p",
    "container": "dcgm-exporter",
    "job": "nvidia-dcgm-exporter",
    "instance": "10.0.0.7:9400",
}
"""What Prometheus knows of its target."""


class Prometheus:
    """Scrapes when a test says so."""

    def __init__(self) -> None:
        self.series: list[tuple[dict[str, str], str]] = []
        self.scraped_at = 0.0
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.answer: tuple[int, bytes] | None = None
        """Something else than an answer."""
        self.url = ""
        self._passed = 0.0

    def clock(self) -> float:
        return time.time() + self._passed

    def later(self, seconds: float) -> None:
        """Time passes, here and for whoever has the same clock."""
        self._passed += seconds

    def scrape(self, text: str, *, honor_labels: bool = True, ago_seconds: float = 0.0) -> None:
        """Take the exporter's text as one scrape."""
        self.series = []
        for line in text.splitlines():
            found = LINE.match(line.strip())
            if found is None:
                continue
            own = dict(LABEL.findall(found[2]))
            labels = EXPORTER | own
            if not honor_labels:
                clashing = {f"exported_{key}": value for key, value in own.items() if key in EXPORTER}
                labels = own | EXPORTER | clashing
            self.series.append(({"__name__": found[1], **labels}, found[3]))
        self.scraped_at = self.clock() - ago_seconds

    def query(self, query: str) -> dict[str, Any]:
        now = self.clock()
        stamps = re.fullmatch(r'timestamp\((\w+)\{UUID!=""\}\)', query)
        if stamps:
            result = [
                {
                    "metric": {key: value for key, value in labels.items() if key != "__name__"},
                    "value": [now, f"{self.scraped_at:.3f}"],
                }
                for labels, _ in self.series
                if labels["__name__"] == stamps[1]
            ]
        else:
            names = re.fullmatch(r'\{__name__=~"([\w|]+)",UUID!=""\}', query)
            assert names is not None, query
            result = [
                {"metric": labels, "value": [now, value]}
                for labels, value in self.series
                if re.fullmatch(names[1], labels["__name__"]) and labels.get("UUID")
            ]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}


@contextmanager
def running_prometheus() -> Iterator[Prometheus]:
    prometheus = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = urlsplit(self.path)
            assert where.path == "/prom/api/v1/query"
            [query] = parse_qs(where.query)["query"]
            prometheus.asked.append(query)
            prometheus.tokens.append(self.headers.get("Authorization"))
            status, body = prometheus.answer or (200, json.dumps(prometheus.query(query)).encode())
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        prometheus.url = f"http://127.0.0.1:{server.server_address[1]}/prom/"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield prometheus
        finally:
            server.shutdown()
            thread.join()
