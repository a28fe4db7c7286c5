"""Builds the stand-in for NVIDIA's management library, and lays out GPUs for it (see ``nvml.c``)."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
NAME = "NVIDIA H100 80GB HBM3 (simulated)"
MEMORY_BYTES = 80 * 1024**3


def build(folder: Path) -> Path:
    """Compile the library into ``folder``, unless it is there already; returns the library's path."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "nvml.sha256"
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    library = folder / LIBRARY
    if not library.exists() or not mark.exists() or mark.read_text() != digest:
        new = folder / f"{LIBRARY}.{os.getpid()}"
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
        subprocess.run([*command, "-o", str(new), str(SOURCE), "-lpthread"], check=True)
        new.replace(library)
        mark.write_text(digest)
    return library


def lay_out(state: Path, gpus: int, *, name: str = NAME, memory_bytes: int = MEMORY_BYTES) -> list[str]:
    """Make ``gpus`` GPUs in the state folder; returns their UUIDs."""
    return [
        lay_out_device(state / "gpus" / str(index), f"GPU-{_uuid('gpu', index)}", name, memory_bytes)
        for index in range(gpus)
    ]


def divide(state: Path, index: int, parts: int, *, memory_bytes: int = 10 * 1024**3) -> list[str]:
    """Divide a GPU (MIG); returns the parts' UUIDs."""
    whole = state / "gpus" / str(index)
    name = (whole / "name").read_text()
    return [
        lay_out_device(
            whole / "mig" / str(number),
            f"MIG-{_uuid('mig', index, number)}",
            f"{name} MIG 1g.10gb",
            memory_bytes,
        )
        for number in range(parts)
    ]


def lay_out_device(folder: Path, uuid: str, name: str, memory_bytes: int) -> str:
    """Make one device's folder; its folder ``use`` is for everybody, as a device file is."""
    use = folder / "use"
    use.mkdir(parents=True, exist_ok=True)
    use.chmod(0o1777)
    (folder / "name").write_text(name)
    (folder / "memory").write_text(str(memory_bytes))
    (folder / "uuid").write_text(uuid)  # last: with it the device is there
    return uuid


def _uuid(*what: object) -> str:
    digits = hashlib.sha256(repr(what).encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
