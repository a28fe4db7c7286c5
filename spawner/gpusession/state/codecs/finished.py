"""What would be refused while it is open, running or halted, and is harmless once that is over.

``with open(...) as f`` leaves a closed file behind, a pool that was shut down keeps its name, a thread
was joined. These hold nothing any more: they come back closed, finished or exhausted, and whoever
uses them gets the same error as before. What was never started is only its arguments: a generator, a
coroutine, a thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.thread
import dis
import gc
import inspect
import io
import sqlite3
import subprocess
import sys
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
        yield types.CoroutineType, reduce_coroutine
        yield types.AsyncGeneratorType, reduce_async_generator
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
    if generator.gi_frame is None:
        return rebuild.exhausted_generator, (generator.__name__, generator.__qualname__)
    halted = generator.gi_running or not _is_fresh(generator.gi_frame)
    return _unstarted(generator, generator.gi_code, None if halted else generator.gi_frame, pickler)


def reduce_coroutine(coroutine: Any, pickler: StatePickler) -> Any:
    frame = coroutine.cr_frame
    if frame is not None and (coroutine.cr_running or not _is_fresh(frame)):
        frame = None
    return _unstarted(coroutine, coroutine.cr_code, frame, pickler)


def reduce_async_generator(generator: Any, pickler: StatePickler) -> Any:
    frame = generator.ag_frame
    if frame is not None and (generator.ag_running or not _is_fresh(frame)):
        frame = None
    return _unstarted(generator, generator.ag_code, frame, pickler)


def _is_fresh(frame: types.FrameType) -> bool:
    """It halts first where it was made; after that it has been started."""
    code = frame.f_code
    made = (one.offset for one in dis.get_instructions(code) if one.opname == "RETURN_GENERATOR")
    return frame.f_lasti <= next(made, -1)


def _unstarted(thing: Any, code: types.CodeType, frame: Any, pickler: StatePickler) -> Any:
    """Call its function again, with the same arguments: none of its code has run yet."""
    functions = (one for one in gc.get_referents(thing) if isinstance(one, types.FunctionType))
    function = next((one for one in functions if one.__code__ is code), None)
    if frame is None or function is None:
        raise _refuse(f"builtins.{type(thing).__name__}")
    local, names = frame.f_locals, code.co_varnames
    plain, named = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    keywords = {name: local[name] for name in names[plain:named]}
    positional = [local[name] for name in names[:plain]]
    if code.co_flags & inspect.CO_VARARGS:
        positional += local[names[named]]
        named += 1
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keywords |= local[names[named]]
    pickler.record.keep.append((positional, keywords))
    args = (function, positional, keywords, thing.__name__, thing.__qualname__)
    return rebuild.unstarted, args


def reduce_thread(thread: Any, pickler: StatePickler) -> Any:
    kind = type(thread)
    own = kind is threading.Thread or (
        kind.__module__ == "__main__" and kind.__bases__ == (threading.Thread,)
    )
    if thread.is_alive() or not own:
        raise _refuse("threading.Thread")
    if thread.ident is None:
        pickler.anew("A thread that was not started yet is made anew.")
        called = (thread._target, thread._args, thread._kwargs)
        made = (kind, thread.name, thread.daemon)
        return rebuild.new_thread, made, (called, _own_attributes(thread)), None, None, rebuild.fill_thread
    args = (thread.name, thread.daemon)
    if kind is threading.Thread:
        return rebuild.finished_thread, args
    state = (kind, _own_attributes(thread))
    return rebuild.finished_thread, args, state, None, None, rebuild.fill_finished_thread


def _own_attributes(thread: threading.Thread) -> dict[str, Any]:
    usual = vars(threading.Thread())
    return {name: value for name, value in vars(thread).items() if name not in usual}


def reduce_pool(pool: Any, pickler: StatePickler) -> Any:
    if pool._shutdown and not any(thread.is_alive() for thread in pool._threads):
        return rebuild.closed_pool, (pool._max_workers,)
    if pool._shutdown or type(pool) is not concurrent.futures.ThreadPoolExecutor or not _is_idle(pool):
        raise _refuse("concurrent.futures._base.Executor")
    pickler.anew("The pool had nothing to do: its threads are made anew.")
    return rebuild.idle_pool, (pool._max_workers, pool._thread_name_prefix, pool._initializer, pool._initargs)


def _is_idle(pool: Any) -> bool:
    """Do all of its threads wait for work? There is no count that tells: it lags behind."""
    if pool._work_queue.qsize() or getattr(pool, "_broken", False):
        return False
    frames = sys._current_frames()
    waiting = concurrent.futures.thread._worker.__code__
    return all(
        (frame := frames.get(thread.ident)) is None or frame.f_code is waiting for thread in pool._threads
    )


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
