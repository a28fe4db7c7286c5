"""The node's simulated GPUs, as plain files that every stand-in reads and any test may change.

One folder per GPU, ``gpus/INDEX/``, as the stand-in libnvidia-ml lays it out (`tests.cluster.nvml`), and in
it ``health``: what the device plugin tells the kubelet. ``use/`` is mounted into the container that gets the
GPU. On the node the state folder is /run/gpuhub-nvml.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster.nvml.build import MEMORY_BYTES, lay_out

COUNT = 4
RESOURCE = "nvidia.com/gpu"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
ON_NODE = Path("/run/gpuhub-nvml")
IN_CONTAINER = Path("/run/gpu")
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"

LABELS = {
    "nvidia.com/gpu.product": PRODUCT,
    "nvidia.com/gpu.memory": str(MEMORY_BYTES // 1024**2),
    "nvidia.com/gpu.count": str(COUNT),
    "gpuhub.io/simulated": "true",
}
"""What NVIDIA's feature discovery would say of the node, and that it is not true."""


class Gpus:
    """The state folder, from whichever side it is seen."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def make(self, count: int = COUNT) -> None:
        """Write the files of ``count`` healthy GPUs."""
        lay_out(self.state, count)
        for index in range(count):
            self.set_health(index, True)

    def ids(self) -> list[str]:
        """Return the UUIDs, by index."""
        return [self._read(index, "uuid") for index in self.indices()]

    def indices(self) -> list[int]:
        folder = self.state / "gpus"
        return sorted(int(one.name) for one in folder.iterdir()) if folder.is_dir() else []

    def health(self, index: int) -> str:
        return self._read(index, "health")

    def set_health(self, index: int, healthy: bool) -> None:
        """Break a GPU, or mend it; the kubelet hears of it within a second."""
        new = self._folder(index) / "health.new"
        new.write_text((HEALTHY if healthy else UNHEALTHY) + "\n")
        os.replace(new, self._folder(index) / "health")

    def use_folder(self, index: int) -> Path:
        return self._folder(index) / "use"

    def _read(self, index: int, name: str) -> str:
        return (self._folder(index) / name).read_text().strip()

    def _folder(self, index: int) -> Path:
        return self.state / "gpus" / str(index)
