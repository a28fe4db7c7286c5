"""The sampler keeps looking, keeps the last minutes, and invents nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gpuhub.telemetry.base import Sample
from gpuhub.telemetry.sampler import Sampler
from tests.launching import until


def sample(at: float, device: str = "SIM-0") -> Sample:
    return Sample(device, at, 0.0, 0, 1)


class Counting:
    """Telemetry that answers with the number of the look; ``fails``: looks that raise, against the port."""

    def __init__(self, fails: set[int] | None = None, silent: set[int] | None = None) -> None:
        self.looks = 0
        self.fails = fails or set()
        self.silent = silent or set()

    async def sample(self) -> Sequence[Sample]:
        self.looks += 1
        if self.looks in self.fails:
            raise RuntimeError("broken")
        return [] if self.looks in self.silent else [sample(float(self.looks))]


async def test_only_the_last_samples_are_kept() -> None:
    sampler = Sampler(Counting(), kept=3)
    for _ in range(5):
        await sampler.look()
    assert [kept.at for kept in sampler.history("SIM-0")] == [3, 4, 5]
    assert [kept.at for kept in sampler.history("SIM-0", since=4)] == [5]
    assert sampler.history("SIM-9") == []


async def test_a_look_without_an_answer_leaves_a_gap() -> None:
    sampler = Sampler(Counting(silent={2, 3}))
    for _ in range(3):
        await sampler.look()
    assert sampler.latest()["SIM-0"].at == 1


async def test_listeners_hear_each_look() -> None:
    heard: list[Sequence[Sample]] = []
    sampler = Sampler(Counting(silent={2}))
    sampler.listen(heard.append)
    await sampler.look()
    await sampler.look()
    assert [len(samples) for samples in heard] == [1, 0]


async def test_a_broken_look_does_not_end_the_looking() -> None:
    telemetry = Counting(fails={1, 2})
    sampler = Sampler(telemetry, every_seconds=0.001)
    running = asyncio.create_task(sampler.run())
    await until(sampler.latest, "a look succeeds")
    running.cancel()
    assert telemetry.looks >= 3
