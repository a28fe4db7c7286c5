"""Logs as JSON lines: ``timestamp``, ``level``, ``logger``, ``event``, and what belongs to it.

`gpuhub up` reads them and shows people one readable line each (`gpuhub.up.readable`).
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

QUIET_LOGGERS = (
    "httpx",
    "httpcore",
    "aiosqlite",
    "alembic.runtime.migration",
    "uvicorn.access",
    "uvicorn.error",
)


def configure(stream: TextIO = sys.stdout, level: int = logging.INFO) -> None:
    """Send everything that structlog and the standard library log to ``stream``."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
