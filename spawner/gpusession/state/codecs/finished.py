"""What would be refused while it is open, running or halted, and is harmless once that is over.

``with open(...) as f`` leaves a closed file behind, a pool that was shut down keeps its name, a thread
was joined. These hold nothing any more: they come back closed, finished or exhausted, and whoever
uses them gets the same error as before. A generator that was never started is only its
arguments.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import sqlite3
import subprocess
import threading
import types
from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_finished as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import REFUSED, Refused


class FinishedCodec:
    library = "builtins"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        for kind in (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO):
            yield kind, reduce_file
        yield sqlite3.Connection, reduce_connection
        yield types.GeneratorType, reduce_generator
        yield threading.Thread, reduce_thread
        yield concurrent.futures.ThreadPoolExecutor, reduce_pool
        yield concurrent.futures.Future, reduce_future
        yield asyncio.Future, reduce_task
        yield asyncio.Task, reduce_task
        yield subprocess.Popen, reduce_process


codec = FinishedCodec()


def _refuse(path: str) -> Refused:
    return Refused(*REFUSED[path])


def reduce_file(file: Any, _pickler: StatePickler) -> Any:
    kind = type(file)
    if not file.closed or kind.__module__ != "_io":
        raise _refuse("_io.FileIO")
    name, mode = _said(file, "name"), _said(file, "mode")
    return rebuild.closed_file, (kind, name, mode, getattr(file, "encoding", None))


def _said(file: Any, what: str) -> Any:
    value = getattr(file, what, None)
    return value if isinstance(value, str | bytes | int) else None


def reduce_connection(connection: Any, _pickler: StatePickler) -> Any:
    try:
        connection.total_changes  # noqa: B018 — a closed one fails here
    except sqlite3.ProgrammingError as error:
        if type(connection) is sqlite3.Connection and "closed" in str(error):
            return rebuild.closed_connection, ()
    raise _refuse("sqlite3.Connection")


def reduce_generator(generator: Any, pickler: StatePickler) -> Any:
    from gpusession.state.functions import namespace_of

    frame = generator.gi_frame
    if frame is None:
        return rebuild.exhausted_generator, (generator.__name__, generator.__qualname__)
    code = generator.gi_code
    if generator.gi_running or frame.f_lasti >= _first_instruction(code) or code.co_freevars:
        raise _refuse("builtins.generator")
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if code.co_flags & 0x0C or code.co_cellvars:  # *args, **kwargs
        raise _refuse("builtins.generator")
    pickler.by_value = True
    local = frame.f_locals
    arguments = {name: local[name] for name in names}
    args = (code, namespace_of(frame.f_globals, pickler), generator.__name__, generator.__qualname__)
    return rebuild.fresh_generator, (*args, list(arguments.values()))


def _first_instruction(code: types.CodeType) -> int:
    """Where a generator halts first: after that it has been started."""
    import dis

    return next((one.offset + 2 for one in dis.get_instructions(code) if one.opname == "RETURN_GENERATOR"), 0)


def reduce_thread(thread: Any, _pickler: StatePickler) -> Any:
    if type(thread) is not threading.Thread or thread.ident is None or thread.is_alive():
        raise _refuse("threading.Thread")
    return rebuild.finished_thread, (thread.name, thread.daemon)


def reduce_pool(pool: Any, _pickler: StatePickler) -> Any:
    if not pool._shutdown or any(thread.is_alive() for thread in pool._threads):
        raise _refuse("concurrent.futures._base.Executor")
    return rebuild.closed_pool, (pool._max_workers,)


def reduce_future(future: Any, _pickler: StatePickler) -> Any:
    if type(future) is not concurrent.futures.Future or not future.done():
        raise _refuse("concurrent.futures._base.Future")
    return rebuild.done_future, (), _outcome(future), None, None, rebuild.finish_future


def reduce_task(task: Any, pickler: StatePickler) -> Any:
    if not task.done():
        raise _refuse("_asyncio.Task")
    if isinstance(task, asyncio.Task):
        pickler.note("It is finished: what it returned is carried.")
    return rebuild.done_asyncio_future, (), _outcome(task), None, None, rebuild.finish_future


def _outcome(future: Any) -> tuple[Any, Any, bool]:
    if future.cancelled():
        return None, None, True
    error = future.exception()
    return (None, error, False) if error is not None else (future.result(), None, False)


def reduce_process(process: Any, _pickler: StatePickler) -> Any:
    if type(process) is not subprocess.Popen or process.returncode is None:
        raise _refuse("subprocess.Popen")
    state = {name: value for name, value in process.__dict__.items() if name != "_waitpid_lock"}
    return rebuild.ended_process, (), state, None, None, rebuild.fill_process
