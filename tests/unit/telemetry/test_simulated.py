"""Simulated GPUs are as busy as their worker's processes, and never claim to be real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuhub.telemetry.inventory import simulated_gpus
from gpuhub.telemetry.simulated import SimulatedTelemetry

GIB = 1024**3


@dataclass
class Process:
    pid: int
    cpu_seconds: float
    rss_bytes: int = GIB
    name: str = "python"
    main: bool = False


class Workshop:
    """A worker whose processes a test moves by hand, and a clock with it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: list[Process] = []
        self.answers = True
        self.telemetry = SimulatedTelemetry(
            simulated_gpus(2), self.on, clock=lambda: 1000 + self.now, stopwatch=lambda: self.now
        )

    async def on(self, device_id: str) -> Sequence[Process]:
        if not self.answers:
            raise ConnectionError
        return self.processes if device_id == "SIM-0" else []

    async def after(self, seconds: float) -> float:
        self.now += seconds
        return (await self.telemetry.sample())[0].utilisation_percent


async def test_a_process_that_computes_is_use() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 10.0)]
    assert await shop.after(0) == 0
    shop.processes[0].cpu_seconds += 1.0
    assert await shop.after(2) == 50
    assert await shop.after(2) == 0


async def test_many_busy_processes_are_not_more_than_all_of_a_gpu() -> None:
    shop = Workshop()
    shop.processes = [Process(pid, 0.0) for pid in range(8)]
    await shop.after(0)
    for process in shop.processes:
        process.cpu_seconds += 2.0
    assert await shop.after(2) == 100


async def test_a_kernel_that_waits_is_idle_although_it_blinks() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 10.0)]
    await shop.after(0)
    shop.processes[0].cpu_seconds += 0.05
    assert await shop.after(2) == 0
    shop.processes[0].cpu_seconds += 0.07
    assert await shop.after(2) > 3


async def test_the_workers_own_process_is_nobodys_work() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 0.0, main=True), Process(2, 0.0, rss_bytes=3)]
    await shop.after(0)
    shop.processes[0].cpu_seconds += 2
    shop.now += 2
    [sample, _] = await shop.telemetry.sample()
    assert sample.utilisation_percent == 0
    assert sample.memory_bytes == 3
    assert [process.pid for process in sample.processes] == [2]


async def test_a_process_that_came_between_two_looks_counts_with_all_it_did() -> None:
    shop = Workshop()
    await shop.after(0)
    shop.processes = [Process(1, 1.5)]
    assert await shop.after(2) == 75


async def test_what_ran_before_the_first_look_is_not_use_now() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 3600.0)]
    assert await shop.after(5) == 0


async def test_a_process_that_ends_is_not_negative_use() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 100.0), Process(2, 0.0)]
    await shop.after(0)
    shop.processes = [Process(2, 1.0)]
    assert await shop.after(2) == 50


async def test_no_answer_is_no_sample_and_no_guess_afterwards() -> None:
    shop = Workshop()
    shop.processes = [Process(1, 0.0)]
    await shop.after(0)
    shop.answers = False
    shop.now += 2
    assert await shop.telemetry.sample() == []
    shop.answers = True
    shop.processes[0].cpu_seconds = 4.0
    assert await shop.after(2) == 0
    shop.processes[0].cpu_seconds = 6.0
    assert await shop.after(2) == 100


async def test_every_sample_says_that_it_is_simulated() -> None:
    shop = Workshop()
    assert all(sample.simulated for sample in await shop.telemetry.sample())
    assert all("simulated" in gpu.name for gpu in simulated_gpus(3))
    assert [gpu.id for gpu in simulated_gpus(2)] == ["SIM-0", "SIM-1"]
