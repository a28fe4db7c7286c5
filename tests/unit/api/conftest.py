"""The app in this process, with a broker that gives everything and a hub that knows three."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.api.broker import GivesEverything, KnowsThree, app


@pytest.fixture
def broker() -> GivesEverything:
    return GivesEverything()


@pytest.fixture
def hub() -> KnowsThree:
    return KnowsThree()


@pytest.fixture
async def http(broker: GivesEverything, hub: KnowsThree) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app(broker, hub), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu.example") as client:
        yield client
