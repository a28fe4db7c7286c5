"""DCGM through Prometheus as the source of telemetry: the exporter's own text, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gpuhub.telemetry.base import Device
from gpuhub.telemetry.dcgm import ASK_SECONDS, FRESH_SECONDS, KNOWN_SECONDS, DcgmTelemetry
from tests.service.agent.prometheus import Prometheus, running_prometheus

COMMON = (
    'device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",DCGM_FI_DRIVER_VERSION="580.82.07"'
)
BUSY = f'gpu="0",UUID="GPU-0",pci_bus_id="00000000:19:00.0",{COMMON}'
FREE = f'gpu="1",UUID="GPU-1",pci_bus_id="00000000:3B:00.0",{COMMON}'
POD = 'container="worker",namespace="users",pod="gpu-7f3c"'
WHOLE = f"""
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{{BUSY},{POD}}} 97
DCGM_FI_DEV_GPU_UTIL{{{FREE},container="",namespace="",pod=""}} 0
# HELP DCGM_FI_DEV_FB_FREE Framebuffer memory free (in MiB).
# TYPE DCGM_FI_DEV_FB_FREE gauge
DCGM_FI_DEV_FB_FREE{{{BUSY},{POD}}} 50000
DCGM_FI_DEV_FB_FREE{{{FREE},container="",namespace="",pod=""}} 81000
# HELP DCGM_FI_DEV_FB_USED Framebuffer memory used (in MiB).
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{{BUSY},{POD}}} 31000
DCGM_FI_DEV_FB_USED{{{FREE},container="",namespace="",pod=""}} 0
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{{{BUSY},{POD}}} 512.250000
# HELP DCGM_FI_PROF_GR_ENGINE_ACTIVE Ratio of time the graphics engine is active.
# TYPE DCGM_FI_PROF_GR_ENGINE_ACTIVE gauge
DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{BUSY},{POD}}} 0.951200
DCGM_FI_DEV_XID_ERRORS{{{BUSY},err_code="0",err_msg="No Error",{POD}}} 0
"""
PART = f'gpu="0",UUID="GPU-0",{COMMON},GPU_I_PROFILE="1g.10gb"'
DIVIDED = f"""
DCGM_FI_DEV_GPU_UTIL{{{PART},GPU_I_ID="7",{POD}}} 0
DCGM_FI_DEV_FB_FREE{{{PART},GPU_I_ID="7",{POD}}} 9000
DCGM_FI_DEV_FB_USED{{{PART},GPU_I_ID="7",{POD}}} 728
DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{PART},GPU_I_ID="7",{POD}}} 0.125
DCGM_FI_DEV_FB_FREE{{{PART},GPU_I_ID="8"}} 9728
DCGM_FI_DEV_FB_USED{{{PART},GPU_I_ID="8"}} 0
"""
OTHER = 'container="worker",namespace="users",pod="gpu-9a1b"'


def shared(use: int) -> str:
    return f"""
DCGM_FI_DEV_GPU_UTIL{{{BUSY},vgpu="0",{POD}}} {use}
DCGM_FI_DEV_FB_USED{{{BUSY},vgpu="0",{POD}}} 100
DCGM_FI_DEV_GPU_UTIL{{{BUSY},vgpu="1",{OTHER}}} {use}
DCGM_FI_DEV_FB_USED{{{BUSY},vgpu="1",{OTHER}}} 100
"""


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with running_prometheus() as running:
        yield running


class Source:
    def __init__(self, prometheus: Prometheus, **fields: Path) -> None:
        self.now = 0.0
        self.telemetry = DcgmTelemetry(
            prometheus.url, stopwatch=lambda: self.now, clock=prometheus.clock, **fields
        )

    async def use(self) -> dict[str, float]:
        self.now += ASK_SECONDS
        return {one.device_id: one.utilisation_percent for one in await self.telemetry.sample()}


@pytest.fixture
async def source(prometheus: Prometheus) -> AsyncIterator[Source]:
    made = Source(prometheus)
    yield made
    await made.telemetry.close()


@pytest.mark.parametrize("honor_labels", [True, False], ids=["pod", "exported_pod"])
async def test_use_memory_power_and_pods_are_read(
    prometheus: Prometheus, source: Source, honor_labels: bool
) -> None:
    prometheus.scrape(WHOLE, honor_labels=honor_labels, ago_seconds=2)
    samples = {one.device_id: one for one in await source.telemetry.sample()}
    busy = samples["GPU-0"]
    assert (busy.utilisation_percent, busy.power_watts) == (97, 512.25)
    assert (busy.memory_bytes, busy.memory_total_bytes) == (31000 * 1024**2, 81000 * 1024**2)
    assert samples["GPU-1"].utilisation_percent == 0
    assert source.telemetry.allocations("node-1", "users", "gpu-7f3c") == (
        Device("GPU-0", 0, "NVIDIA H100 80GB HBM3", 81000 * 1024**2),
    )
    assert source.telemetry.allocations("node-1", "users", "gpu-none") is None


async def test_a_scrape_is_told_once_and_an_old_one_never(prometheus: Prometheus, source: Source) -> None:
    prometheus.scrape(WHOLE, ago_seconds=3)
    assert set(await source.use()) == {"GPU-0", "GPU-1"}
    assert await source.use() == {}
    prometheus.scrape(WHOLE)
    assert set(await source.use()) == {"GPU-0", "GPU-1"}
    prometheus.scrape(WHOLE, ago_seconds=FRESH_SECONDS + 1)
    assert await source.use() == {}
    assert source.telemetry.allocations("node-1", "users", "gpu-7f3c") is not None
    source.now += KNOWN_SECONDS + 1
    assert source.telemetry.allocations("node-1", "users", "gpu-7f3c") is None


def with_energy(millijoules: int) -> str:
    series = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    return f"{WHOLE}{series}{{{BUSY},{POD}}} {millijoules}\n{series}{{{FREE}}} {millijoules + 5}\n"


async def test_an_exporter_that_repeats_its_last_look_is_told_once(
    prometheus: Prometheus, source: Source
) -> None:
    """Scraped every 5 s, it may itself look every 30 s only: between two looks nothing is known."""
    prometheus.scrape(with_energy(1000))
    assert set(await source.use()) == {"GPU-0", "GPU-1"}
    for _ in range(4):
        prometheus.later(5)
        prometheus.scrape(with_energy(1000))
        assert await source.use() == {}
    prometheus.later(5)
    prometheus.scrape(with_energy(9000))
    assert set(await source.use()) == {"GPU-0", "GPU-1"}


@pytest.mark.parametrize("slow", ["prometheus", "exporter"])
async def test_looks_that_come_too_seldom_are_said_with_what_to_do(
    prometheus: Prometheus, source: Source, slow: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 25):
        prometheus.later(5)
        if slow == "exporter" or number % 6 == 0:
            prometheus.scrape(with_energy(1000 * (number // 6)))
        await source.use()
    [said] = [record.getMessage() for record in caplog.records if "apart" in record.getMessage()]
    assert "looks at GPUs come 30 s apart" in said
    assert "scrape_interval" in said
    assert "--collect-interval to 5000" in said


async def test_looks_every_five_seconds_are_nothing_to_talk_about(
    prometheus: Prometheus, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        prometheus.later(5)
        if number != 4:  # one scrape fails
            prometheus.scrape(with_energy(1000 + number))
        await source.use()
    assert "apart" not in caplog.text


async def test_it_is_asked_no_more_often_than_it_looks(prometheus: Prometheus, source: Source) -> None:
    prometheus.scrape(WHOLE)
    await source.use()
    asked = len(prometheus.asked)
    assert list(await source.telemetry.sample()) == []
    assert len(prometheus.asked) == asked == 2


async def test_of_a_part_only_the_engines_activity_counts(prometheus: Prometheus, source: Source) -> None:
    prometheus.scrape(DIVIDED)
    assert await source.use() == {"GPU-0/gi7": 12.5}, "of the other part nothing is known"
    [part] = source.telemetry.allocations("node-1", "users", "gpu-7f3c") or ()
    assert (part.name, part.memory_bytes) == ("NVIDIA H100 80GB HBM3 1g.10gb", 9728 * 1024**2)


async def test_whose_use_of_a_shared_gpu_it_is_dcgm_does_not_tell(
    prometheus: Prometheus, source: Source
) -> None:
    prometheus.scrape(shared(0))
    assert await source.use() == {"GPU-0::0": 0, "GPU-0::1": 0}
    prometheus.scrape(shared(40))
    assert await source.use() == {}
    assert [one.id for one in source.telemetry.allocations("", "users", "gpu-9a1b") or ()] == ["GPU-0::1"]


async def test_a_simulated_gpu_says_so(prometheus: Prometheus, source: Source) -> None:
    prometheus.scrape(WHOLE.replace("HBM3", "HBM3 (simulated)"))
    assert {one.simulated for one in await source.telemetry.sample()} == {True}


@pytest.mark.parametrize(
    "answer",
    [
        (503, b"{}"),
        (200, b"<html>sign in</html>"),
        (200, b'{"status":"error","error":"parse error"}'),
        (200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}'),
        (200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":7},{}]}}'),
        (200, b'{"status":"success","data":[]}'),
        (200, b"[]"),
    ],
)
async def test_a_prometheus_that_answers_badly_is_no_answer(
    prometheus: Prometheus, source: Source, answer: tuple[int, bytes]
) -> None:
    prometheus.answer = answer
    assert await source.use() == {}
    prometheus.answer = None
    prometheus.scrape(WHOLE)
    assert len(await source.use()) == 2


async def test_a_prometheus_that_is_away_is_no_answer() -> None:
    telemetry = DcgmTelemetry("http://127.0.0.1:1")
    assert list(await telemetry.sample()) == []
    assert telemetry.allocations("node-1", "users", "gpu-7f3c") is None
    await telemetry.close()


async def test_the_token_is_read_anew_each_time(prometheus: Prometheus, tmp_path: Path) -> None:
    token = tmp_path / "token"
    source = Source(prometheus, token_file=token)
    assert await source.use() == {}, "no token, no question"
    token.write_text("first\n")
    await source.use()
    token.write_text("second\n")
    await source.use()
    await source.telemetry.close()
    assert prometheus.tokens == ["Bearer first"] * 2 + ["Bearer second"] * 2
