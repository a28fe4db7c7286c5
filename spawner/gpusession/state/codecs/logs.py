"""Log handlers: with a lock of their own; one that writes a file opens it again at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from gpusession.state import rebuild
from gpusession.state.pickling import StatePickler


class LogsCodec:
    library = "logging"

    def handlers(self) -> Iterator[tuple[type, Any]]:
        yield logging.Handler, reduce_handler
        yield logging.FileHandler, reduce_file_handler


codec = LogsCodec()


def reduce_handler(handler: Any, _pickler: StatePickler) -> Any:
    state = {name: value for name, value in handler.__dict__.items() if name != "lock"}
    return rebuild.handler, (type(handler),), state, None, None, rebuild.fill_handler


def reduce_file_handler(handler: Any, pickler: StatePickler) -> Any:
    pickler.note("Its log file is opened again at its end.")
    kept = ("_name", "level", "formatter", "filters", "terminator", "mode", "delay")
    state = {name: value for name, value in handler.__dict__.items() if name in kept}
    args = (logging.FileHandler, handler.baseFilename, handler.encoding, getattr(handler, "errors", None))
    if type(handler) is not logging.FileHandler:
        return reduce_handler(handler, pickler)  # holds an open file, which is refused
    return rebuild.file_handler, args, state, None, None, rebuild.fill_handler
