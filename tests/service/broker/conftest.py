"""One gpuhub with two simulated GPUs for the tests that leave it as they found it; people with tokens."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.person import Person
from tests.running import RunningHub

NUMBERS = itertools.count(1)
POLICY = {"gpus_at_once": 2, "leases_at_once": 3, "key_wait_seconds": 600}

Enrol = Callable[[], Awaitable[Person]]


@pytest.fixture(scope="package")
def hub() -> Iterator[RunningHub]:
    folder = Path(tempfile.mkdtemp(prefix="gpuhub-test-"))
    os.chmod(folder, 0o711)
    try:
        with RunningHub(folder / "hub", gpus="sim:2", policy=POLICY) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def enrol(hub: RunningHub) -> AsyncIterator[Enrol]:
    """Makes people of fresh names; what they hold is released at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make() -> Person:
            person = await Person.enrol(hub.url, hub.admin_token, f"person{next(NUMBERS)}")
            await stack.enter_async_context(person)
            stack.push_async_callback(release_all, person)
            return person

        yield make


def broker_address(hub: RunningHub) -> tuple[str, int]:
    """Where the broker itself listens: what servers use, past the proxy."""
    lines = hub.child("broker").net_connections("tcp")
    address = next(line.laddr for line in lines if line.status == "LISTEN")
    return str(address.ip), int(address.port)


async def release_all(person: Person) -> None:
    for lease in (await person.broker("GET", "leases"))["leases"]:
        await person.broker("DELETE", f"leases/{lease['id']}")
