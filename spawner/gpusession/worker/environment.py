"""What the processes on the worker find in their environment.

Promises: which GPUs they see is the worker's word, whatever the order said; the secrets of a
server, should an order carry them, end here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DEVICES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

_DROPPED = re.compile(
    r"JUPYTERHUB_.*|JPY_.*|CONFIGPROXY_.*|GPUHUB_BROKER_.*|GPUHUB_UNIT.*|GPUHUB_.*(TOKEN|SECRET|PASSWORD).*"
)
"""Of hub and broker, and the launcher's marks: with a server's mark a process would count as its own."""


def on_worker(ordered: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process: ``ordered``, with what is the worker's from ``own``."""
    found = {name: value for name, value in ordered.items() if not _DROPPED.fullmatch(name)}
    for name in DEVICES:
        found.pop(name, None)
    found.update(
        {name: value for name, value in own.items() if name in DEVICES or name.startswith("GPUHUB_")}
    )
    return found
