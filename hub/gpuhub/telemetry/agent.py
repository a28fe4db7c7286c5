"""The node agent: looks at this node's GPUs every five seconds and tells the broker.

``python -P -m gpuhub.telemetry.agent`` (``--print``: one report on the standard output, then the end).
Told by environment variables (`AgentSettings`); has no rights in Kubernetes beyond the token that proves
which node it runs on. Promises: whatever fails is said in the report and does not stop it; a broker that
is away is asked again, less and less often, while no more than the last minute is kept; SIGTERM ends it at
once.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from gpuhub.telemetry import cgroups, podresources
from gpuhub.telemetry.looking import Eyes, Seen, pod_resources
from gpuhub.telemetry.nvml import Nvml
from gpuhub.telemetry.report import clean
from gpuhub.telemetry.writing import report_body

LOOK_SECONDS = 5.0
"""Idleness wants one sample per 5 s at least."""
KEPT = 12
"""Looks that wait for a broker that is away: one minute."""
PUSH_SECONDS = 4.0
LONGEST_PAUSE_SECONDS = 15.0
"""A broker that is back is told within this time; until then nothing is known and nobody is reclaimed."""
TOKEN_FILE = Path("/var/run/secrets/gpuhub/token")
EXIT_REFUSED = 2

log = structlog.get_logger("gpuhub.telemetry.agent")


@dataclass(frozen=True)
class AgentSettings:
    """What the environment says. Variables: in `from_environment`."""

    node: str
    broker_url: str
    token_file: Path = TOKEN_FILE
    pod_resources: Path = podresources.SOCKET
    pod_logs: Path = cgroups.POD_LOGS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> AgentSettings:
        """Read GPUHUB_NODE, GPUHUB_BROKER_URL and the optional paths. Raises `ValueError`."""
        for name in ("GPUHUB_NODE", "GPUHUB_BROKER_URL"):
            if not environment.get(name):
                raise ValueError(f"the environment variable {name} is missing")
        url = environment["GPUHUB_BROKER_URL"].rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ValueError("GPUHUB_BROKER_URL must begin with http:// or https://")
        return cls(
            node=environment["GPUHUB_NODE"],
            broker_url=url,
            token_file=Path(environment.get("GPUHUB_TOKEN_FILE") or TOKEN_FILE),
            pod_resources=Path(environment.get("GPUHUB_POD_RESOURCES") or podresources.SOCKET),
            pod_logs=Path(environment.get("GPUHUB_POD_LOGS") or cgroups.POD_LOGS),
        )


class Refused(Exception):
    """The broker did not take the report. ``final``: it would not take the same one later either."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Door:
    """The way to the broker."""

    def __init__(self, settings: AgentSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._token_file = settings.token_file
        self._url = f"{settings.broker_url}/api/v1/nodes/{settings.node}/samples"
        self._http = httpx.AsyncClient(timeout=PUSH_SECONDS, trust_env=False, transport=transport)

    async def push(self, body: bytes) -> None:
        """Send one report. Raises `Refused`."""
        try:
            token = self._token_file.read_text(
                encoding="ascii"
            ).strip()  # anew: it is changed every few minutes
        except (OSError, ValueError) as error:
            raise Refused(f"the token cannot be read: {error}") from None
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            async with asyncio.timeout(PUSH_SECONDS):
                answer = await self._http.post(self._url, content=body, headers=headers)
        except TimeoutError:
            raise Refused("it does not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Refused(f"it does not answer: {error or type(error).__name__}") from None
        if answer.status_code != 204:
            why = f"status {answer.status_code}: {clean(answer.text, 300)}"
            raise Refused(why, final=answer.status_code in (400, 409, 413, 422))


class Agent:
    """Looks, keeps the last minute, and sends it."""

    def __init__(
        self,
        eyes: Eyes,
        push: Callable[[bytes], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._eyes, self._push, self._clock, self._jitter = eyes, push, clock, jitter
        self.kept: deque[Seen] = deque(maxlen=KEPT)
        self._failures = 0
        self._next_try = 0.0
        self._said: str | None = None

    async def turn(self) -> None:
        """Look once; send what is kept, unless the broker refused it a moment ago."""
        seen = await self._eyes.look()
        self.kept.append(seen)
        if self._clock() >= self._next_try:
            await self._deliver()

    async def run(self) -> None:
        """Take turns at a steady pace until cancelled."""
        due = self._clock()
        while True:
            try:
                await self.turn()
            except Exception:  # whatever it was, the next turn may work; the agent must not die
                log.exception("a turn failed")
            due = max(due + LOOK_SECONDS, self._clock())
            await asyncio.sleep(due - self._clock())

    async def _deliver(self) -> None:
        body = report_body(self.kept, self._clock())
        problem = self.kept[-1].problem
        try:
            await self._push(body)
        except Refused as error:
            if error.final:
                self.kept.clear()
            self._failures += 1
            pause = min(LONGEST_PAUSE_SECONDS, LOOK_SECONDS * 2 ** min(self._failures - 1, 8))
            self._next_try = self._clock() + pause * (0.75 + self._jitter() / 2)
            self._say("warning", "the broker did not take it", str(error))
            return
        self.kept.clear()
        self._failures, self._next_try = 0, 0.0
        if problem:
            self._say("warning", "not everything could be looked at", problem)
        else:
            self._say("info", "the broker knows this node's GPUs", "")

    def _say(self, level: str, event: str, why: str) -> None:
        """Log what is new, once."""
        if self._said != event + why:
            self._said = event + why
            getattr(log, level)(event, **({"why": why} if why else {}))


def _configure_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _logger, _method, event: {"logger": "gpuhub.telemetry.agent", **event},
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def _work(settings: AgentSettings, *, only_print: bool) -> None:
    # A driver call that hangs hangs in a thread that nobody can end; there is nothing to put away either.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    eyes = Eyes(
        Nvml(parts=True),
        pods_of=pod_resources(settings.pod_resources),
        pod_uids=lambda: cgroups.pod_uids(settings.pod_logs),
    )
    if only_print:
        print(report_body([await eyes.look()], time.monotonic()).decode(), flush=True)
        os._exit(0)
    log.info("the agent looks", node=settings.node, broker=settings.broker_url)
    await Agent(eyes, Door(settings).push).run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gpuhub.telemetry.agent", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print one report and end")
    options = parser.parse_args()
    _configure_logs()
    try:
        settings = AgentSettings.from_environment(os.environ)
    except ValueError as error:
        log.error("the agent cannot run", why=str(error))
        return EXIT_REFUSED
    try:
        asyncio.run(_work(settings, only_print=options.print))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
