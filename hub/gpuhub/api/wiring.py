"""The broker's process: settings in, everything made and joined, put away in reverse order.

It listens at once, and serves while it leads: only then are the store (with its migrations), the backend
and the loops behind opened. A broker that loses the lead puts all of them away, waits, and starts anew.
Which backend and telemetry there are, `gpuhub.api.places` alone knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from gpuhub.api import logs
from gpuhub.api.app import make_app
from gpuhub.api.gate import Gate
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.places import Place, open_place
from gpuhub.api.serving import serve
from gpuhub.api.signin import SignIn
from gpuhub.broker.assembly import Broker
from gpuhub.broker.leadership import Leadership
from gpuhub.broker.settings import PolicySettings, load_policy
from gpuhub.broker.site import BrokerSettings, load_settings
from gpuhub.store import Store
from gpuhub.telemetry.sampler import Sampler

EXIT_REFUSED = 2

log = structlog.get_logger(__name__)


def run(settings_file: Path) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    logs.configure(sys.stdout)
    try:
        settings = load_settings(settings_file)
        policy = load_policy(settings.policy_file)
    except (OSError, ValueError) as error:
        log.error("the settings cannot be used", why=str(error))
        return EXIT_REFUSED
    try:
        asyncio.run(run_broker(settings, policy))
    except OSError as error:
        log.error("the broker cannot run", why=str(error))
        return 1
    except Exception:
        log.exception("the broker cannot run")
        return 1
    return 0


async def run_broker(settings: BrokerSettings, policy: PolicySettings) -> None:
    """Run the broker until a signal. Raises `OSError` where the address cannot be used."""
    stop, closing = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signin = SignIn(settings.hub_api_url, settings.hub_api_token.get_secret_value())
    gate = Gate(signin.prefix)
    async with open_place(settings) as place:
        listening = loop.create_task(
            serve(gate, settings.host, settings.port, stop=stop, closing=closing), name="listening"
        )
        serving = partial(_serve_leading, settings, policy, place, gate, signin, closing)
        leading = loop.create_task(_lead(place.leadership, serving), name="leading")
        try:
            # `_lead` ends by trouble only; `serve` ends by trouble, or when it was told to.
            await asyncio.wait([listening, leading], return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await listening
            if leading.done():
                await leading
        finally:
            stop.set()
            for task in (leading, listening):
                task.cancel()
            await asyncio.gather(leading, listening, return_exceptions=True)
            await place.leadership.release()
    log.info("the broker ends")


async def _lead(leadership: Leadership, serving: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Serve whenever this broker leads, until cancelled."""
    while True:
        await leadership.acquire()
        await _either(leadership.hold(), serving())


async def _either(hold: Coroutine[Any, Any, None], work: Coroutine[Any, Any, None]) -> None:
    """Run both until the first ends, then put the other away. Raises what the first raised."""
    tasks = [asyncio.ensure_future(hold), asyncio.ensure_future(work)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _serve_leading(
    settings: BrokerSettings,
    policy: PolicySettings,
    place: Place,
    gate: Gate,
    signin: SignIn,
    closing: asyncio.Event,
) -> None:
    """Open everything, let requests in, and put it away when cancelled."""
    token = settings.hub_api_token.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(settings.database_url.get_secret_value())
        stack.push_async_callback(store.close)
        served = await stack.enter_async_context(place.serve())
        sampler = Sampler(served.telemetry)
        broker = await stack.enter_async_context(
            Broker(store, served.backend, sampler, policy, leads=place.leadership.leads)
        )
        tokens = HubTokens(settings.hub_api_url)
        stack.push_async_callback(tokens.close)
        people = People(settings.hub_api_url, token)
        stack.push_async_callback(people.close)
        parts = Parts(
            broker=broker.service,
            tokens=tokens,
            people=people,
            signin=signin,
            metrics=broker.metrics.render,
            agents=served.agents,
        )
        gate.open(make_app(parts), place.leadership.leads)
        stack.callback(gate.close)
        # Event streams end with the process, and with the lead.
        stack.callback(parts.closing.set)
        log.info("the broker answers", address=f"{settings.host}:{settings.port}")
        await closing.wait()
        parts.closing.set()
        await asyncio.Event().wait()
