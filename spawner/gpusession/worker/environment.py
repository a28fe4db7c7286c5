"""What the processes on the worker find in their environment.

Promises: which GPUs they see is the worker's word, whatever the order said; the secrets of a
server, should an order carry them, end here; the launcher's marks are the worker's, or a process
here would count as the server's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpusession.kernels.environment import KERNELS_HERE, without_secrets

DEVICES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


def on_worker(ordered: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process: ``ordered``, with what is the worker's from ``own``."""
    found = without_secrets(ordered)
    for name in DEVICES:
        found.pop(name, None)
    found.update(
        {name: value for name, value in own.items() if name in DEVICES or name.startswith("GPUHUB_")}
    )
    found[KERNELS_HERE] = "1"  # a program that starts kernels here wants them on the GPU, not at the server
    return found
