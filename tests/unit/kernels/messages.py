"""Builders of Jupyter messages as they arrive at the relay."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from gpusession.kernels.admission import Request, request_from
from gpusession.kernels.wire import Message, Wire, parse

KEY = b"secret"


def wire(session: str = "client") -> Wire:
    numbers = itertools.count(1)
    return Wire(KEY, session, lambda: f"{session}{next(numbers)}", lambda: datetime(2026, 1, 1, tzinfo=UTC))


CLIENT = wire()


def message(kind: str = "execute_request", sender: Wire = CLIENT, **content: Any) -> Message:
    found = parse(sender.make(kind, content, idents=[b"browser"]))
    assert found is not None
    return found


def cell(code: str = "1", **content: Any) -> Request:
    return request_from(message(code=code, **content), [])


def request(kind: str, **content: Any) -> Request:
    return request_from(message(kind, **content), [])


def own(kind: str = "gpuhub_request", **content: Any) -> Request:
    return request_from(message(kind, **content), [], own=True)
