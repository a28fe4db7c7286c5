"""NVIDIA's management library, met on its own terms: it may be missing, half there, or break later.

The library is loaded on first use, never at import; "no driver" is a value (`Nvml.problem`), not an
exception; and each question to each device stands alone, so that one broken GPU hides no other.
Calls can block in the driver for seconds: only threads call them (`NvmlTelemetry`).
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpuhub.telemetry.base import ProcessSample, Sample
from gpuhub.telemetry.inventory import Gpu

SHARED_FILES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""Device nodes that every CUDA process needs beside its GPU's own."""

REOPEN_SECONDS = 30.0
"""A driver that was not there is asked for again after this time (it may have been installed)."""

CONTEXT_BYTES = 128 * 1024 * 1024
"""Less than any CUDA context takes, and more than a part of a divided GPU holds when nobody is on it."""

_NOT_FOUND = 6
"""NVML_ERROR_NOT_FOUND: of the last period there is nothing to tell, as nothing ran."""


def _load() -> Any:
    return importlib.import_module("pynvml")


class Nvml:
    """The library, opened when it can be. ``load`` returns the module (or what stands for it).

    ``parts``: a GPU that is divided (MIG) is not shown, its parts are, under UUIDs of their own.
    """

    def __init__(
        self,
        load: Callable[[], Any] = _load,
        *,
        parts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._show_parts = parts
        self._clock = clock
        self._library: Any = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()
        self._seen_until: dict[str, int] = {}
        self._processes_seen_until: dict[str, int] = {}
        self.problem: str | None = "The NVIDIA driver has not been asked yet."

    def open(self) -> bool:
        """Return whether the driver answers; else `problem` says why, for an operator."""
        with self._lock:
            if self._library is not None:
                return True
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < REOPEN_SECONDS:
                return False
            self._tried_at = now
            try:
                library = self._load()
            except ImportError:
                self.problem = "The Python package nvidia-ml-py is not installed."
                return False
            try:
                library.nvmlInit()
            except library.NVMLError as error:
                self.problem = f"No NVIDIA driver answers ({error})."
                return False
            self._library = library
            self.problem = None
            return True

    def close(self) -> None:
        with self._lock:
            if self._library is not None:
                self._ask(self._library.nvmlShutdown, default=None)
                self._library = None
                self._tried_at = None

    def driver(self) -> str | None:
        """Return the driver's version."""
        return (
            _text(self._ask(self._library.nvmlSystemGetDriverVersion, default=None)) if self.open() else None
        )

    def inventory(self) -> tuple[Gpu, ...]:
        """Return the GPUs that answer now."""
        if not self.open():
            return ()
        found = []
        for index, handle, _ in self._devices():
            library = self._library
            uuid = _text(self._ask(library.nvmlDeviceGetUUID, handle, default=None))
            memory = self._ask(library.nvmlDeviceGetMemoryInfo, handle, default=None)
            if not uuid or memory is None:
                continue
            name = _text(self._ask(library.nvmlDeviceGetName, handle, default=None)) or "NVIDIA GPU"
            minor = self._ask(library.nvmlDeviceGetMinorNumber, handle, default=None)
            files = () if minor is None else (f"/dev/nvidia{minor}",)
            found.append(Gpu(uuid, index, name, int(memory.total), simulated=False, files=files))
        return tuple(found)

    def sample(self, at: float, *, by_process: Container[str] = ()) -> tuple[Sample, ...]:
        """Look at every GPU that answers. ``by_process``: those whose use is asked of each process too."""
        if not self.open():
            return ()
        found = []
        for _, handle, part in self._devices():
            library = self._library
            uuid = _text(self._ask(library.nvmlDeviceGetUUID, handle, default=None))
            memory = self._ask(library.nvmlDeviceGetMemoryInfo, handle, default=None)
            utilisation = self._utilisation(uuid, handle) if uuid else None
            if part and utilisation is None and memory is not None and self._deserted(handle, memory):
                utilisation = 0.0
            if not uuid or memory is None or utilisation is None:
                continue  # nothing is known of it now: no sample, and so nobody is reclaimed
            power = self._ask(library.nvmlDeviceGetPowerUsage, handle, default=None)
            use = self._use_of_processes(uuid, handle) if uuid in by_process else None
            found.append(
                Sample(
                    device_id=uuid,
                    at=at,
                    utilisation_percent=utilisation,
                    memory_bytes=int(memory.used),
                    memory_total_bytes=int(memory.total),
                    processes=self._processes(handle, use),
                    power_watts=None if power is None else int(power) / 1000,
                )
            )
        return tuple(found)

    def _handles(self) -> list[tuple[int, Any]]:
        count = self._ask(self._library.nvmlDeviceGetCount, default=None)
        if count is None:
            # The driver went away under us (an update): ask for it anew next time.
            self._library = None
            self._tried_at = self._clock()
            self.problem = "The NVIDIA driver no longer answers."
            return []
        handles = (
            (index, self._ask(self._library.nvmlDeviceGetHandleByIndex, index, default=None))
            for index in range(int(count))
        )
        return [(index, handle) for index, handle in handles if handle is not None]

    def _devices(self) -> Iterator[tuple[int, Any, bool]]:
        """Yield what can be had by itself: whole GPUs, and the parts (True) of divided ones."""
        for index, handle in self._handles():
            library = self._library
            mode = self._ask(library.nvmlDeviceGetMigMode, handle, default=None) if self._show_parts else None
            if mode is None or not mode[0]:
                yield index, handle, False
                continue
            for number in range(int(self._ask(library.nvmlDeviceGetMaxMigDeviceCount, handle, default=0))):
                part = self._ask(library.nvmlDeviceGetMigDeviceHandleByIndex, handle, number, default=None)
                if part is not None:
                    yield index, part, True

    def _deserted(self, handle: Any, memory: Any) -> bool:
        """Whether certainly nobody uses a part of a divided GPU (MIG): no process and no context is on it.

        The driver does not tell how busy a part is. One with a process on it may be busy or not: of that
        nothing is known, and nobody is reclaimed.
        """
        there = self._ask(self._library.nvmlDeviceGetComputeRunningProcesses, handle, default=None)
        return there is not None and len(there) == 0 and int(memory.used) < CONTEXT_BYTES

    def _utilisation(self, uuid: str, handle: Any) -> float | None:
        """Return the mean since the last look; never 0 when the GPU was used at any moment of it.

        The plain rate covers a fraction of a second: a short kernel between two looks would be
        missed, and a GPU that works called idle.
        """
        library = self._library
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle, default=None)
        now = None if rates is None else float(rates.gpu)
        buffer = self._ask(
            library.nvmlDeviceGetSamples,
            handle,
            library.NVML_GPU_UTILIZATION_SAMPLES,
            self._seen_until.get(uuid, 0),
            default=None,
        )
        samples = (
            [] if buffer is None else [s for s in buffer[1] if s.timeStamp > self._seen_until.get(uuid, 0)]
        )
        if not samples:
            return now
        first_look = uuid not in self._seen_until
        self._seen_until[uuid] = max(sample.timeStamp for sample in samples)
        if first_look and now is not None:
            return now  # the buffer reaches back before anybody asked
        values = [float(sample.sampleValue.uiVal) for sample in samples]
        mean = sum(values) / len(values)
        busy = max([*values, now or 0.0]) > 0
        return min(100.0, max(mean, 1.0) if busy else 0.0)

    def _use_of_processes(self, uuid: str, handle: Any) -> dict[int, float] | None:
        """Return how busy each process kept a GPU since the last look; None: the driver does not tell."""
        library, since = self._library, self._processes_seen_until.get(uuid, 0)
        try:
            samples = library.nvmlDeviceGetProcessUtilization(handle, since)
        except library.NVMLError as error:
            return {} if getattr(error, "value", None) == _NOT_FOUND else None
        found: dict[int, float] = {}
        for sample in samples:
            if sample.pid and sample.timeStamp > since:
                found[int(sample.pid)] = max(
                    found.get(int(sample.pid), 0.0), min(100.0, float(sample.smUtil))
                )
                self._processes_seen_until[uuid] = max(
                    self._processes_seen_until.get(uuid, 0), int(sample.timeStamp)
                )
        return found

    def _processes(self, handle: Any, use: dict[int, float] | None = None) -> tuple[ProcessSample, ...]:
        library = self._library
        found: dict[int, int] = {}
        for question in (
            library.nvmlDeviceGetComputeRunningProcesses,
            library.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in self._ask(question, handle, default=None) or ():
                # None: the driver does not tell (some virtual machines, another account's process).
                memory = int(process.usedGpuMemory or 0)
                found[int(process.pid)] = max(found.get(int(process.pid), 0), memory)
        return tuple(
            ProcessSample(pid, _name(pid), memory, None if use is None else use.get(pid, 0.0))
            for pid, memory in sorted(found.items())
        )

    def _ask(self, question: Callable[..., Any], *arguments: Any, default: Any) -> Any:
        try:
            return question(*arguments)
        except self._library.NVMLError:
            return default


class NvmlTelemetry:
    """The telemetry port on NVML. A driver call that hangs costs a sample, never the loop."""

    def __init__(
        self, nvml: Nvml, *, clock: Callable[[], float] = time.time, answer_seconds: float = 5.0
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._asking: asyncio.Future[tuple[Sample, ...]] | None = None

    async def sample(self) -> Sequence[Sample]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._nvml.sample, self._clock()))
        done, _ = await asyncio.wait({self._asking}, timeout=self._answer_seconds)
        if not done or self._asking.cancelled() or self._asking.exception() is not None:
            return ()
        return self._asking.result()


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def _name(pid: int) -> str:
    try:
        # A process may call itself anything, also what is no text.
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip() or str(pid)
    except OSError:
        return str(pid)
