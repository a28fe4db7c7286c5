"""NVML's contract, as gpuhub needs it: the same tests for the stand-in and, where a GPU is, the real one.

A child process loads the library by its name through nvidia-ml-py, as the agent does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.agent.standin import StandIn

LOOKS = """
import dataclasses, json, sys, time
from gpuhub.telemetry.nvml import Nvml
nvml = Nvml(parts=True)
found = []
for number in range(int(sys.argv[1])):
    time.sleep(float(sys.argv[2]) if number else 0)
    gpus = nvml.inventory()
    samples = nvml.sample(float(number), by_process={gpu.id for gpu in gpus})
    found.append({"gpus": [dataclasses.asdict(gpu) for gpu in gpus], "problem": nvml.problem,
                  "samples": [dataclasses.asdict(sample) for sample in samples], "driver": nvml.driver()})
nvml.close()
print(json.dumps(found))
"""


def looks(
    environment: dict[str, str], count: int = 1, pause_seconds: float = 0.0, seconds: float = 60.0
) -> list[dict[str, Any]]:
    """What several looks of one process show."""
    command = [sys.executable, "-P", "-c", LOOKS, str(count), str(pause_seconds)]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=seconds, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.gpu)])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    return request.getfixturevalue("gpus").environment if request.param == "stand-in" else {}


# --- what both keep --------------------------------------------------------------------------------


def test_every_gpu_has_a_uuid_a_name_and_memory(environment: dict[str, str]) -> None:
    [look] = looks(environment)
    assert look["problem"] is None
    assert look["driver"]
    assert look["gpus"]
    for gpu in look["gpus"]:
        assert gpu["id"].startswith(("GPU-", "MIG-"))
        assert len(gpu["id"]) == len("GPU-") + 36
        assert "NVIDIA" in gpu["name"]
        assert gpu["memory_bytes"] > 10**9
    assert len({gpu["id"] for gpu in look["gpus"]}) == len(look["gpus"])


def test_every_whole_gpu_is_measured_at_each_look(environment: dict[str, str]) -> None:
    for look in looks(environment, 3, 1.0):
        whole = [gpu["id"] for gpu in look["gpus"] if gpu["id"].startswith("GPU-")]
        assert [sample["device_id"] for sample in look["samples"]] == whole
        for sample in look["samples"]:
            assert 0 <= sample["utilisation_percent"] <= 100
            assert 0 <= sample["memory_bytes"] <= sample["memory_total_bytes"]
            assert sample["power_watts"] is None or 0 < sample["power_watts"] < 2000
            assert all(process["pid"] > 0 for process in sample["processes"])


def test_the_names_of_gpus_do_not_change_from_process_to_process(environment: dict[str, str]) -> None:
    first, second = (looks(environment)[0]["gpus"] for _ in range(2))
    assert first == second


# --- what the stand-in shows of what really runs -----------------------------------------------------


def test_a_process_that_computes_is_use_and_one_that_waits_is_none(gpus: StandIn) -> None:
    with (
        gpus.user(gpus.gpu(0), memory_bytes=3 * 10**9, burn=True) as busy,
        gpus.user(gpus.gpu(1), memory_bytes=2 * 10**9) as waiting,
    ):
        found = looks(gpus.environment, 3, 1.0)[-1]["samples"]
    assert [[process["pid"] for process in sample["processes"]] for sample in found] == [[busy], [waiting]]
    assert [sample["memory_bytes"] for sample in found] == [3 * 10**9, 2 * 10**9]
    assert found[0]["utilisation_percent"] > 10
    assert found[0]["processes"][0]["utilisation_percent"] > 10
    assert found[1]["utilisation_percent"] == 0
    assert found[0]["power_watts"] > found[1]["power_watts"]


def test_a_process_that_died_uses_nothing(gpus: StandIn) -> None:
    with gpus.user(gpus.gpu(0), utilisation_percent=50):
        assert looks(gpus.environment)[0]["samples"][0]["utilisation_percent"] == 50
    [sample, _] = looks(gpus.environment)[0]["samples"]
    assert (sample["utilisation_percent"], sample["memory_bytes"], sample["processes"]) == (0, 0, [])


def test_two_processes_on_one_gpu_are_told_apart(gpus: StandIn) -> None:
    with (
        gpus.user(gpus.gpu(0), utilisation_percent=30) as first,
        gpus.user(gpus.gpu(0), utilisation_percent=0) as second,
    ):
        [sample, _] = looks(gpus.environment)[0]["samples"]
    assert {process["pid"]: process["utilisation_percent"] for process in sample["processes"]} == {
        first: 30,
        second: 0,
    }


def test_what_a_hostile_program_leaves_in_the_folder_harms_nobody(gpus: StandIn) -> None:
    use = gpus.gpu(0) / "use"
    os.mkfifo(use / "pipe")
    (use / "link").symlink_to("/dev/zero")
    (use / "folder").mkdir()
    (use / "not-held").write_text("memory 999999999999\nutilisation 100\n")
    for number in range(500):
        (use / f"many-{number}").touch()
    with gpus.user(gpus.gpu(0), memory_bytes=10**30, utilisation_percent=1e9) as pid:
        [sample, _] = looks(gpus.environment)[0]["samples"]
    assert [one["pid"] for one in sample["processes"]] == [pid]
    assert sample["memory_bytes"] <= sample["memory_total_bytes"]
    assert sample["utilisation_percent"] <= 100


# --- every way in which the real one fails -----------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "words"),
    [("not-loaded", "Driver Not Loaded"), ("unknown", "Unknown Error"), (None, "Not Loaded")],
)
def test_a_driver_that_is_not_loaded_is_a_value(gpus: StandIn, how: str | None, words: str) -> None:
    gpus.break_driver(how)
    environment = gpus.environment if how else gpus.environment | {"GPUHUB_NVML_STATE": "/no/such/place"}
    [look] = looks(environment)
    assert (look["gpus"], look["samples"]) == ([], [])
    assert words in look["problem"]


def test_no_library_is_a_value(tmp_path: Path) -> None:
    [look] = looks({"LD_LIBRARY_PATH": str(tmp_path)})
    assert "NVML Shared Library Not Found" in look["problem"]


def test_a_lost_gpu_hides_no_other(gpus: StandIn) -> None:
    gpus.break_gpu(0, "lost")
    [look] = looks(gpus.environment)
    assert [gpu["id"] for gpu in look["gpus"]] == [gpus.ids[1]]
    gpus.unplug(1)
    assert looks(gpus.environment)[0]["gpus"] == []


def test_a_gpu_that_cannot_be_measured_is_there_without_a_sample(gpus: StandIn) -> None:
    gpus.break_gpu(0, "not-supported")
    [look] = looks(gpus.environment)
    assert len(look["gpus"]) == 2
    assert [sample["device_id"] for sample in look["samples"]] == [gpus.ids[1]]


def test_a_driver_that_hides_processes_still_measures(gpus: StandIn) -> None:
    gpus.break_gpu(0, "no-processes")
    with gpus.user(gpus.gpu(0), utilisation_percent=60):
        sample = looks(gpus.environment)[0]["samples"][0]
    assert (sample["utilisation_percent"], sample["processes"]) == (60, [])


def test_a_gpu_that_times_out_costs_its_time_and_nothing_else(gpus: StandIn) -> None:
    gpus.break_gpu(0, "timeout 0.2")
    began = time.monotonic()
    [look] = looks(gpus.environment)
    assert time.monotonic() - began > 0.2
    assert [gpu["id"] for gpu in look["gpus"]] == [gpus.ids[1]]


def test_of_a_divided_gpus_parts_only_one_that_nobody_is_on_is_known_to_be_silent(gpus: StandIn) -> None:
    parts = gpus.divide(0, 2)
    with gpus.user(gpus.gpu(0) / "mig" / "1", utilisation_percent=80):
        [look] = looks(gpus.environment)
    assert [gpu["id"] for gpu in look["gpus"]] == [*parts, gpus.ids[1]]
    assert [gpu["memory_bytes"] for gpu in look["gpus"][:2]] == [10 * 1024**3] * 2
    assert "simulated" in look["gpus"][0]["name"]
    used = {sample["device_id"]: sample["utilisation_percent"] for sample in look["samples"]}
    assert used == {parts[0]: 0, gpus.ids[1]: 0}


def test_a_part_with_a_process_that_computes_nothing_is_not_called_silent(gpus: StandIn) -> None:
    parts = gpus.divide(0, 1)
    with gpus.user(gpus.gpu(0) / "mig" / "0", utilisation_percent=0):
        [look] = looks(gpus.environment)
    assert parts[0] not in {sample["device_id"] for sample in look["samples"]}
