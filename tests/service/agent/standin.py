"""The stand-in for NVIDIA's library in a folder of a test, and programs that use its GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.nvml.build import divide, lay_out
from tests.cluster.nvml.use import USE

PROGRAM = (
    USE
    + """
import sys, time
held = use_gpu(int(sys.argv[2]), None if sys.argv[3] == "-" else float(sys.argv[3]), folder=sys.argv[1])
print("holds it", flush=True)
while sys.argv[4] == "burn":
    sum(range(1000))
while True:
    time.sleep(3600)
"""
)


class StandIn:
    """GPUs for whoever loads the library with `environment`."""

    def __init__(self, folder: Path, library: Path, gpus: int = 2) -> None:
        self.state, self.library = folder / "state", library
        self.ids = lay_out(self.state, gpus)

    @property
    def environment(self) -> dict[str, str]:
        return {"GPUHUB_NVML_STATE": str(self.state), "LD_LIBRARY_PATH": str(self.library.parent)}

    def gpu(self, index: int) -> Path:
        return self.state / "gpus" / str(index)

    def divide(self, index: int, parts: int) -> list[str]:
        return divide(self.state, index, parts)

    def break_driver(self, how: str | None) -> None:
        _write(self.state / "driver", how)

    def break_gpu(self, index: int, how: str | None) -> None:
        _write(self.gpu(index) / "fail", how)

    def unplug(self, index: int) -> None:
        """The GPU with the highest index is no longer there at all."""
        shutil.rmtree(self.gpu(index))

    @contextmanager
    def user(
        self,
        gpu: Path,
        *,
        memory_bytes: int = 10**9,
        utilisation_percent: float | None = None,
        burn: bool = False,
    ) -> Iterator[int]:
        """A process that uses a GPU; its pid."""
        use = "-" if utilisation_percent is None else str(utilisation_percent)
        command = [sys.executable, "-c", PROGRAM, str(gpu / "use"), str(memory_bytes), use]
        with subprocess.Popen(
            [*command, "burn" if burn else "wait"], stdout=subprocess.PIPE, env=dict(os.environ)
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"holds it\n"
            try:
                yield process.pid
            finally:
                process.kill()


def _write(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink(missing_ok=True)
    else:
        file.write_text(text)
