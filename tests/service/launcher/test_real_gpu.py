"""A real NVIDIA GPU, where the machine has one: what NVML says, and that its files can be managed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpuhub.telemetry.nvml import Nvml, NvmlTelemetry
from gpuhub.telemetry.sources import Machine

pytestmark = pytest.mark.gpu


def test_auto_finds_the_real_gpus_and_their_files() -> None:
    inventory = Machine("auto").look()
    assert inventory.problem is None
    assert inventory.driver
    assert not inventory.simulated
    for gpu in inventory.gpus:
        assert gpu.id.startswith("GPU-")
        assert gpu.memory_bytes > 1024**3
        assert "simulated" not in gpu.name
        assert all(Path(file).is_char_device() for file in gpu.files)
    assert "/dev/nvidiactl" in inventory.shared_files


async def test_a_real_gpu_answers_with_plausible_numbers() -> None:
    nvml = Nvml()
    telemetry = NvmlTelemetry(nvml)
    samples = await telemetry.sample()
    assert {sample.device_id for sample in samples} == {gpu.id for gpu in nvml.inventory()}
    for sample in samples:
        assert 0 <= sample.utilisation_percent <= 100
        assert 0 <= sample.memory_bytes <= sample.memory_total_bytes
        assert abs(sample.at - time.time()) < 60
        assert not sample.simulated
