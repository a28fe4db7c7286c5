"""What a saved stream calls to make finished things again. Names and arguments are part of the format."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import os
import sqlite3
import subprocess
import threading
import types
from typing import Any


def closed_file(kind: type, name: Any, mode: Any, encoding: str | None) -> Any:
    """A file object of this kind that was closed; it was never open here."""
    reads = kind is not io.BufferedWriter and not (isinstance(mode, str) and mode[:1] in ("w", "a", "x"))
    raw: Any = io.FileIO(os.devnull, "r+" if kind is io.BufferedRandom else "r" if reads else "w")
    if name is not None:
        raw.name = name
    if kind is io.FileIO:
        raw.close()
        return raw
    wanted = kind
    if kind is io.TextIOWrapper:
        wanted = io.BufferedReader if reads else io.BufferedWriter
    made: Any = wanted(raw)
    if kind is io.TextIOWrapper:
        made = io.TextIOWrapper(made, encoding=encoding or "utf-8")
        if mode is not None:
            made.mode = mode
    made.close()
    return made


def closed_connection() -> Any:
    made = sqlite3.connect(":memory:")
    made.close()
    return made


def exhausted_generator(name: str, qualified: str) -> Any:
    made: Any = (None for _ in ())
    for _ in made:
        continue
    made.__name__, made.__qualname__ = name, qualified
    return made


def fresh_generator(
    code: types.CodeType, namespace: dict[str, Any], name: str, qualified: str, arguments: list[Any]
) -> Any:
    func = types.FunctionType(
        code.replace(co_posonlyargcount=0, co_kwonlyargcount=0, co_argcount=len(arguments)), namespace, name
    )
    made = func(*arguments)
    made.__name__, made.__qualname__ = name, qualified
    return made


def unstarted(
    function: Any, positional: list[Any], keywords: dict[str, Any], name: str, qualified: str
) -> Any:
    """A generator, a coroutine: none of its code runs before it is asked for something."""
    made = function(*positional, **keywords)
    made.__name__, made.__qualname__ = name, qualified
    return made


def new_thread(kind: type[threading.Thread], name: str, daemon: bool) -> threading.Thread:
    made = kind.__new__(kind)
    threading.Thread.__init__(made, name=name, daemon=daemon)
    return made


def fill_thread(made: Any, state: tuple[tuple[Any, Any, Any], dict[str, Any]]) -> None:
    (made._target, made._args, made._kwargs), attributes = state
    made.__dict__.update(attributes)


def fill_finished_thread(made: Any, state: tuple[type, dict[str, Any]]) -> None:
    made.__class__, attributes = state
    made.__dict__.update(attributes)


def finished_thread(name: str, daemon: bool) -> threading.Thread:
    made = threading.Thread(target=int, name=name, daemon=daemon)
    made.start()
    made.join()
    return made


def closed_pool(workers: int) -> Any:
    made = concurrent.futures.ThreadPoolExecutor(workers)
    made.shutdown()
    return made


def idle_pool(workers: int, prefix: str, initializer: Any, arguments: tuple[Any, ...]) -> Any:
    return concurrent.futures.ThreadPoolExecutor(workers, prefix, initializer, arguments)


def done_future() -> Any:
    return concurrent.futures.Future()


def done_asyncio_future() -> Any:
    """A future that needs no loop any more: it is done as soon as its state is there."""
    loop = asyncio.new_event_loop()
    try:
        return asyncio.Future(loop=loop)
    finally:
        loop.close()


def finish_future(made: Any, outcome: tuple[Any, Any, bool]) -> None:
    result, error, cancelled = outcome
    if cancelled:
        made.cancel()
        if isinstance(made, concurrent.futures.Future):
            made.set_running_or_notify_cancel()
    elif error is not None:
        made.set_exception(error)
        if isinstance(made, asyncio.Future):
            made.exception()  # seen: or its end would be reported as an error that nobody looked at
    else:
        made.set_result(result)


def ended_process() -> Any:
    made: Any = subprocess.Popen.__new__(subprocess.Popen)
    made._waitpid_lock = threading.Lock()
    return made


def fill_process(made: Any, state: dict[str, Any]) -> None:
    made.__dict__.update(state)
