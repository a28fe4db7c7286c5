"""A server of one's own for each test that changes much; one shared by those that only look."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.service.session.desk import Desk, server_with_broker


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with server_with_broker() as made:
        yield made
