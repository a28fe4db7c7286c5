"""The log handlers that a kernel sets up for itself.

Exists as a class of its own so that the state agent can tell them from handlers that a person
added: those are to be carried along, these are made anew by each kernel.
"""

from __future__ import annotations

import logging


class KernelHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes where the kernel process's own error output goes."""
