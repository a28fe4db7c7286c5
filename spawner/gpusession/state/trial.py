"""Loads once, in a copy of the process, what may pickle and not load.

Some objects can be saved and never loaded: a ``__reduce__`` that names the wrong arguments, a
``__setstate__`` that fails. "Kept" would be a lie that shows a day later. So what holds code of the
notebook is loaded on trial, in a forked child: nothing that this code does to its memory, its globals
or its output reaches the person's process, and a crash is the child's. What it does to files or to
the network would be done for real, as it is at every load.

Not tried: data without code of the notebook (libraries' own reducers are trusted), streams of more
than `LIMIT_BYTES`, and anything once CUDA was used, which a forked child must not touch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

from gpusession.state.pickling import StateUnpickler, Stream

LIMIT_BYTES = 16 << 20


def possible() -> bool:
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return not (cuda is not None and cuda.is_initialized()) and "cupy" not in sys.modules


def failures(
    streams: Sequence[tuple[bytes, Stream, int]], anchored: dict[str, Any], seconds: float
) -> dict[int, str]:
    """Load every stream (prelude, stream, number of values); return why some could not be, by index.

    ``seconds``: how long one of them may take.
    """
    found: dict[int, str] = {}
    start, hung_before = 0, -1
    while start < len(streams):
        index, why = _run(streams, start, anchored, seconds, found)
        if index is None:
            break
        if why is None and index != hung_before:
            # It may have been a lock that another thread held at the fork: once more.
            hung_before, start = index, index
            continue
        found[index] = why or "It takes too long to load."
        start = index + 1
    return found


def _run(
    streams: Sequence[tuple[bytes, Stream, int]],
    start: int,
    anchored: dict[str, Any],
    seconds: float,
    found: dict[int, str],
) -> tuple[int | None, str | None]:
    """Return (None, None) once all are through, (n, None) if the n-th hung, (n, why) if it crashed."""
    inlet, outlet = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
    except OSError:
        os.close(inlet)
        os.close(outlet)
        return None, None  # no memory for a trial: the load itself will tell
    if child == 0:
        _child(streams, start, anchored, inlet, outlet)
    os.close(outlet)
    at, pending, alive_since = start, b"", time.monotonic()
    try:
        while True:
            ready, _, _ = select.select([inlet], [], [], max(0.0, alive_since + seconds - time.monotonic()))
            if not ready:
                return at, None
            data = os.read(inlet, 65536)
            if not data:
                break
            alive_since = time.monotonic()
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                at, why = json.loads(line)
                if why is not None:
                    found[at] = why
    finally:
        os.close(inlet)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return None, None
    if at >= len(streams):
        return None, None
    return at, "Loading it crashes Python."


def _child(
    streams: Sequence[tuple[bytes, Stream, int]],
    start: int,
    anchored: dict[str, Any],
    inlet: int,
    outlet: int,
) -> None:
    """Never returns."""
    try:
        os.close(inlet)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        for index in range(start, len(streams)):
            _say(outlet, index, None)
            try:
                _load(*streams[index], anchored)
            except BaseException as error:  # noqa: BLE001 — the trial's result
                text = " ".join(str(error).split())[:200]
                _say(outlet, index, f"It can be saved but not loaded: {type(error).__name__}: {text}.")
        _say(outlet, len(streams), None)
        os._exit(0)
    finally:
        os._exit(1)


def _say(outlet: int, index: int, why: str | None) -> None:
    os.write(outlet, json.dumps([index, why]).encode() + b"\n")


def _load(prelude: bytes, stream: Stream, count: int, anchored: dict[str, Any]) -> None:
    data = prelude + b"".join(bytes(one) for one in stream.chunks or ())
    loader = StateUnpickler(io.BytesIO(data), iter([_copy(one) for one in stream.buffers]), anchored)
    for _ in range(count + 1):
        loader.load()


def _copy(buffer: Any) -> Any:
    if buffer.array is None:
        return bytearray(buffer.view) if buffer.writable else bytes(buffer.view)
    import numpy as np

    dtype, shape, order = buffer.array
    made: Any = np.empty(tuple(shape), np.dtype(dtype), order)
    made.reshape(-1, order="A").view(np.uint8)[...] = np.frombuffer(buffer.view, np.uint8)
    return made
