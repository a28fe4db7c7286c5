"""One event loop in one thread, and the only bridge to it.

Exists so that a blocked Jupyter server never blocks a move, and a move never blocks the Jupyter
server. Promises: what is begun on the loop is ended with it; a task that fails unexpectedly is
logged, never silent.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from gpulease import errors

log = logging.getLogger(__name__)

T = TypeVar("T")


class OwnLoop:
    """Subclasses extend `begin` and `finish`; both run on the loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; returns once its loop runs. Raises what `begin` raises."""
        ready = threading.Event()
        failed: list[BaseException] = []

        def main() -> None:
            with asyncio.Runner() as runner:
                try:
                    runner.run(self._main(ready))
                except BaseException as error:
                    if ready.is_set():
                        raise
                    failed.append(error)
                    ready.set()

        self._thread = threading.Thread(target=main, name=self._name, daemon=True)
        self._thread.start()
        ready.wait()
        if failed:
            raise failed[0]

    async def _main(self, ready: threading.Event) -> None:
        self._over = asyncio.Event()
        await self.begin()
        ready.set()
        await self._over.wait()
        await self.finish()

    async def begin(self) -> None:
        """Begin on the running loop."""
        self._loop = asyncio.get_running_loop()

    async def finish(self) -> None:
        """End every task that was spawned."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this loop and await it from another one."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise errors.Unavailable("The session of this server is not running.")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start something on this loop (from it) whose failure is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("unexpected failure in %s", task.get_name(), exc_info=task.exception())

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(timeout_seconds)
