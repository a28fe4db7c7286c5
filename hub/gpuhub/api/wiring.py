"""The broker's process: settings in, everything made and joined once, put away in reverse order.

Nothing else in `gpuhub.api` knows which backend, store or telemetry there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import structlog

from gpuhub.api import logs
from gpuhub.api.app import make_app
from gpuhub.api.hubtokens import HubTokens
from gpuhub.api.parts import Parts
from gpuhub.api.people import People
from gpuhub.api.serving import serve
from gpuhub.api.signin import SignIn
from gpuhub.backends.local import LocalBackend
from gpuhub.broker.assembly import Broker
from gpuhub.broker.settings import BrokerSettings, PolicySettings, load_policy, load_settings
from gpuhub.store import Store
from gpuhub.telemetry.sampler import Sampler
from gpuhub.telemetry.sources import Machine
from gpuspawner.launcher.accounts import Accounts
from gpuspawner.launcher.client import LauncherClient

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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        store = await Store.open(settings.database_url)
        stack.push_async_callback(store.close)
        machine = Machine(settings.gpus)
        await machine.inventory()
        backend = LocalBackend(
            LauncherClient(settings.launcher_socket),
            gpus=machine.gpus,
            accounts=Accounts(
                settings.account_mode,
                homes=settings.homes,
                book=settings.accounts_book,
                shared_uid=settings.shared_uid,
            ),
            prefix=settings.prefix,
        )
        stack.push_async_callback(backend.close)
        sampler = Sampler(machine.telemetry(backend.processes_on))
        broker = await stack.enter_async_context(Broker(store, backend, sampler, policy))
        service_token = settings.hub_api_token.get_secret_value()
        tokens = HubTokens(settings.hub_api_url)
        stack.push_async_callback(tokens.close)
        people = People(settings.hub_api_url, service_token)
        stack.push_async_callback(people.close)
        parts = Parts(
            broker=broker.service,
            tokens=tokens,
            people=people,
            signin=SignIn(settings.hub_api_url, service_token),
            metrics=broker.metrics.render,
        )
        log.info("the broker answers", address=f"{settings.host}:{settings.port}")
        await serve(make_app(parts), settings.host, settings.port, stop=stop, closing=parts.closing)
        log.info("the broker ends")
