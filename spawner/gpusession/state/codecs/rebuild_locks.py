"""What a saved stream calls to make free locks anew. Names and arguments are part of the format."""

from __future__ import annotations

import queue
import threading
from typing import Any


def lock() -> Any:
    return threading.Lock()


def reentrant() -> Any:
    return threading.RLock()


def condition(kind: type[threading.Condition]) -> Any:
    return kind.__new__(kind)


def fill_condition(made: Any, held: Any) -> None:
    threading.Condition.__init__(made, held)


def simple_queue() -> Any:
    return queue.SimpleQueue[Any]()


def local() -> Any:
    return threading.local()


def fill_local(made: Any, state: dict[str, Any]) -> None:
    made.__dict__.update(state)
