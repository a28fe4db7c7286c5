"""What threads share, while no thread uses it: a free lock, an event, a queue with what lies in it.

A free lock holds nothing but its identity: a new one that everybody shares who shared the old one is as
good, and an object that guards itself with a lock need not stay behind for it. One that is held, or that a
thread waits for, is refused: whoever holds it cannot come along. What was made anew is said.
"""

from __future__ import annotations

import _queue
import _thread
import queue
import threading
from collections.abc import Iterator
from typing import Any

from gpusession.state.codecs import rebuild_locks as rebuild
from gpusession.state.pickling import StatePickler
from gpusession.state.refusals import AGAIN, REFUSED, Refused

ANEW = "Its locks were free and are made anew."


class LocksCodec:
    library = "builtins"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        yield _thread.LockType, reduce_lock
        yield _thread.RLock, reduce_reentrant
        yield threading.Condition, reduce_condition
        yield threading.BoundedSemaphore, reduce_bounded
        for kind in (threading.Semaphore, threading.Event, threading.Barrier, queue.Queue):
            yield kind, by_pickle
        yield _queue.SimpleQueue, reduce_simple_queue
        yield threading.local, reduce_local


codec = LocksCodec()


def _held() -> Refused:
    return Refused("A lock that is held belongs to the threads of its process.", AGAIN)


def reduce_lock(lock: Any, pickler: StatePickler) -> Any:
    if lock.locked():
        raise _held()
    pickler.anew(ANEW)
    return rebuild.lock, ()


def reduce_reentrant(lock: Any, pickler: StatePickler) -> Any:
    if lock._is_owned() or not lock.acquire(blocking=False):
        raise _held()
    lock.release()
    pickler.anew(ANEW)
    return rebuild.reentrant, ()


def reduce_condition(condition: Any, _pickler: StatePickler) -> Any:
    if condition._waiters:
        raise Refused("Threads of its process wait for it.", AGAIN)
    return rebuild.condition, (type(condition),), condition._lock, None, None, rebuild.fill_condition


def reduce_bounded(semaphore: Any, _pickler: StatePickler) -> Any:
    if semaphore._value != semaphore._initial_value:
        raise _held()
    return NotImplemented


def by_pickle(_thing: Any, _pickler: StatePickler) -> Any:
    """Its parts decide."""
    return NotImplemented


def reduce_simple_queue(waiting: Any, pickler: StatePickler) -> Any:
    if not waiting.empty():  # it does not show what lies in it
        raise Refused(*REFUSED["_queue.SimpleQueue"])
    pickler.anew("The queue was empty and is made anew.")
    return rebuild.simple_queue, ()


def reduce_local(local: Any, pickler: StatePickler) -> Any:
    """The values of the thread that runs the cells."""
    if type(local) is not threading.local or threading.current_thread() is not threading.main_thread():
        raise Refused(*REFUSED["_thread._local"])
    pickler.anew("It holds the values of the cells; those of other threads are gone.")
    return rebuild.local, (), dict(local.__dict__), None, None, rebuild.fill_local
