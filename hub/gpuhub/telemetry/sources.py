"""Puts telemetry together for a choice of GPUs, so that broker, `gpuhub up` and doctor agree.

::

    machine = Machine("auto")                      # nothing happens yet
    inventory = await machine.inventory()          # names, files, why there is no driver
    backend = LocalBackend(client, gpus=machine.gpus, accounts=…, prefix=…)
    telemetry = machine.telemetry(backend.processes_on)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from gpuhub.telemetry.base import Telemetry
from gpuhub.telemetry.inventory import Gpu, Inventory, simulated_count, take_inventory
from gpuhub.telemetry.nvml import SHARED_FILES, Nvml, NvmlTelemetry
from gpuhub.telemetry.simulated import ProcessSource, SimulatedTelemetry


def real_gpus(nvml: Nvml) -> Inventory:
    """Return the machine's real GPUs as its driver names them."""
    gpus = nvml.inventory()
    problem = nvml.problem or (None if gpus else "The NVIDIA driver answers, but shows no GPU.")
    shared = tuple(path for path in SHARED_FILES if Path(path).exists()) if gpus else ()
    return Inventory(gpus, problem=problem, driver=nvml.driver(), shared_files=shared)


class Machine:
    """The GPUs of this machine for one choice of ``--gpus``.

    Whether ``auto`` means real or simulated is decided at the first look and then kept: GPUs
    do not turn into simulated ones because the driver is busy.
    """

    def __init__(self, choice: str, nvml: Nvml | None = None) -> None:
        simulated_count(choice)  # raises for what means nothing
        self._choice = choice
        self._nvml = nvml or Nvml()
        self._first: Inventory | None = None

    def look(self) -> Inventory:
        """Return the inventory. Blocks in the driver: from a loop, use `inventory`."""
        if self._first is None:
            self._first = take_inventory(self._choice, lambda: real_gpus(self._nvml))
            return self._first
        if self._first.simulated or self._choice == "none":
            return self._first
        return real_gpus(self._nvml)

    async def inventory(self) -> Inventory:
        """Return what works now."""
        return await asyncio.to_thread(self.look)

    async def gpus(self) -> Sequence[Gpu]:
        """Return the GPUs that work now: `LocalBackend`'s source."""
        return (await self.inventory()).gpus

    def telemetry(self, processes: ProcessSource) -> Telemetry:
        """Return what measures these GPUs. ``processes`` is asked for simulated ones only."""
        first = self._first or self.look()
        if first.simulated or self._choice == "none":
            return SimulatedTelemetry(first.gpus, processes)
        return NvmlTelemetry(self._nvml)
