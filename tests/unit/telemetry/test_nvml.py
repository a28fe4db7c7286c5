"""NVML as it is met in the field: missing, half there, lost in the middle."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from gpuhub.telemetry.inventory import Inventory, simulated_gpus, take_inventory
from gpuhub.telemetry.nvml import REOPEN_SECONDS, Nvml, NvmlTelemetry
from gpuhub.telemetry.sources import Machine, real_gpus
from tests.launching import until


class DriverError(Exception):
    """Stands for pynvml.NVMLError; `value` is the driver's number."""

    value = 3


class NothingFound(DriverError):
    value = 6


class Driver:
    """A driver with GPUs that a test can break one by one."""

    NVMLError = DriverError
    NVML_GPU_UTILIZATION_SAMPLES = 1

    def __init__(self, gpus: int = 2) -> None:
        self.present = True
        self.lost: set[int] = set()
        self.now: dict[int, int] = dict.fromkeys(range(gpus), 0)
        self.buffer: dict[int, list[tuple[int, int]]] = {}
        self.processes: list[SimpleNamespace] = []
        self.parts: dict[int, int] = {}
        """Into how many parts a GPU is divided."""
        self.use: list[SimpleNamespace] | DriverError = NothingFound("none")
        self.opened = 0

    def _need(self, index: int | None = None) -> None:
        if not self.present or index in self.lost:
            raise DriverError("gone")

    def nvmlInit(self) -> None:
        self._need()
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self._need()

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.1"

    def nvmlDeviceGetCount(self) -> int:
        self._need()
        return sum(index < 100 for index in self.now)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._need(index)
        return index

    def nvmlDeviceGetUUID(self, index: int) -> str:
        self._need(index)
        return f"GPU-{index}"

    def nvmlDeviceGetName(self, index: int) -> str:
        return "NVIDIA Test"

    def nvmlDeviceGetMinorNumber(self, index: int) -> int:
        return index + 3

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:
        self._need(index)
        return SimpleNamespace(total=80, used=20)

    def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:
        self._need(index)
        return SimpleNamespace(gpu=self.now[index])

    def nvmlDeviceGetSamples(self, index: int, kind: int, since: int) -> tuple[int, list[Any]]:
        found = [(at, value) for at, value in self.buffer.get(index, []) if at > since]
        if not found:
            raise DriverError("not found")
        return 0, [
            SimpleNamespace(timeStamp=at, sampleValue=SimpleNamespace(uiVal=value)) for at, value in found
        ]

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[SimpleNamespace]:
        return self.processes

    def nvmlDeviceGetPowerUsage(self, index: int) -> int:
        return 61500

    def nvmlDeviceGetMigMode(self, index: int) -> list[int]:
        if index not in self.parts:
            raise DriverError("not supported")
        return [1 if self.parts[index] else 0, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, index: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, index: int, number: int) -> int:
        if number >= self.parts[index]:
            raise DriverError("not found")
        part = 100 * (index + 1) + number
        self.now[part] = 0
        return part

    def nvmlDeviceGetProcessUtilization(self, index: int, since: int) -> list[SimpleNamespace]:
        if isinstance(self.use, DriverError):
            raise self.use
        return self.use

    def nvmlDeviceGetGraphicsRunningProcesses(self, index: int) -> list[SimpleNamespace]:
        raise DriverError("not supported")


def missing() -> Any:
    raise ImportError("no module named pynvml")


def utilisation(nvml: Nvml) -> list[float]:
    return [sample.utilisation_percent for sample in nvml.sample(0.0)]


def test_no_library_is_a_value() -> None:
    nvml = Nvml(missing)
    assert nvml.inventory() == ()
    assert nvml.sample(0.0) == ()
    assert "nvidia-ml-py" in str(nvml.problem)


def test_no_driver_is_a_value_and_is_asked_for_again_later() -> None:
    driver, now = Driver(), [0.0]
    driver.present = False
    nvml = Nvml(lambda: driver, clock=lambda: now[0])
    assert nvml.inventory() == ()
    assert "No NVIDIA driver answers" in str(nvml.problem)
    driver.present = True
    assert nvml.inventory() == ()
    now[0] += REOPEN_SECONDS
    assert len(nvml.inventory()) == 2
    assert nvml.problem is None


def test_a_real_gpu_has_its_uuid_and_its_device_file() -> None:
    inventory = real_gpus(Nvml(Driver))
    assert [(gpu.id, gpu.files, gpu.simulated) for gpu in inventory.gpus] == [
        ("GPU-0", ("/dev/nvidia3",), False),
        ("GPU-1", ("/dev/nvidia4",), False),
    ]
    assert inventory.driver == "580.1"
    assert inventory.device_files()["GPU-0"] == ["/dev/nvidia3"]


def test_a_lost_gpu_hides_no_other() -> None:
    driver = Driver(3)
    nvml = Nvml(lambda: driver)
    driver.lost = {1}
    assert [gpu.id for gpu in nvml.inventory()] == ["GPU-0", "GPU-2"]
    assert [sample.device_id for sample in nvml.sample(7.0)] == ["GPU-0", "GPU-2"]


def test_a_driver_that_goes_away_is_opened_anew() -> None:
    driver, now = Driver(), [0.0]
    nvml = Nvml(lambda: driver, clock=lambda: now[0])
    assert len(nvml.sample(0.0)) == 2
    driver.present = False
    assert nvml.sample(0.0) == ()
    assert nvml.problem is not None
    driver.present = True
    now[0] += REOPEN_SECONDS
    assert len(nvml.sample(0.0)) == 2
    assert driver.opened == 2


def test_a_short_kernel_between_two_looks_is_not_missed() -> None:
    driver = Driver(1)
    nvml = Nvml(lambda: driver)
    driver.buffer[0] = [(10, 0), (20, 0)]
    assert utilisation(nvml) == [0]
    driver.buffer[0] += [(30, 0), (40, 4), (50, 0), (60, 0)]
    assert utilisation(nvml) == [1]
    driver.buffer[0] += [(70, 90), (80, 30)]
    assert utilisation(nvml) == [60]
    driver.buffer[0] += [(90, 0)]
    assert utilisation(nvml) == [0]


def test_what_happened_before_the_first_look_is_not_use_now() -> None:
    driver = Driver(1)
    driver.buffer[0] = [(10, 100)]
    assert utilisation(Nvml(lambda: driver)) == [0]


def test_a_driver_without_a_buffer_gives_the_rate() -> None:
    driver = Driver(1)
    driver.now[0] = 37
    assert utilisation(Nvml(lambda: driver)) == [37]


def test_processes_of_which_the_driver_hides_the_memory_are_still_named() -> None:
    driver = Driver(1)
    driver.processes = [SimpleNamespace(pid=2**22 + 1, usedGpuMemory=None)]
    [sample] = Nvml(lambda: driver).sample(0.0)
    assert [(process.pid, process.memory_bytes) for process in sample.processes] == [(2**22 + 1, 0)]


def test_a_divided_gpu_is_shown_by_its_parts_where_they_are_asked_for() -> None:
    driver = Driver(2)
    driver.parts = {0: 0, 1: 2}
    assert [gpu.id for gpu in Nvml(lambda: driver).inventory()] == ["GPU-0", "GPU-1"]
    nvml = Nvml(lambda: driver, parts=True)
    assert [(gpu.id, gpu.index) for gpu in nvml.inventory()] == [("GPU-0", 0), ("GPU-200", 1), ("GPU-201", 1)]
    assert [sample.device_id for sample in nvml.sample(0.0)] == ["GPU-0", "GPU-200", "GPU-201"]


class PartsAreNotMeasured(Driver):
    """As the real one: it does not tell how busy a part is, but who is on it, and how full it is."""

    def __init__(self, used: int) -> None:
        super().__init__(1)
        self.parts = {0: 1}
        self.used = used
        self.hides_processes = False
        self.first_unmeasured = 100

    def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:
        if index >= self.first_unmeasured:
            raise DriverError("not supported")
        return super().nvmlDeviceGetUtilizationRates(index)

    def nvmlDeviceGetMemoryInfo(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(total=10 * 1024**3, used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[SimpleNamespace]:
        if self.hides_processes:
            raise DriverError("no permission")
        return super().nvmlDeviceGetComputeRunningProcesses(index)


MIB = 1024**2


@pytest.mark.parametrize(
    ("used_mib", "processes", "hides", "known"),
    [
        pytest.param(13, [], False, True, id="nobody is on it"),
        pytest.param(400, [SimpleNamespace(pid=7, usedGpuMemory=387 * MIB)], False, False, id="somebody is"),
        pytest.param(400, [], False, False, id="a context of nobody that is named"),
        pytest.param(13, [], True, False, id="the driver does not name processes"),
        pytest.param(
            13, [SimpleNamespace(pid=7, usedGpuMemory=None)], False, False, id="its memory is hidden"
        ),
    ],
)
def test_a_part_is_silent_only_while_certainly_nobody_is_on_it(
    used_mib: int, processes: list[SimpleNamespace], hides: bool, known: bool
) -> None:
    driver = PartsAreNotMeasured(used_mib * MIB)
    driver.processes, driver.hides_processes = processes, hides
    found = Nvml(lambda: driver, parts=True).sample(0.0)
    assert [(one.device_id, one.utilisation_percent) for one in found] == (
        [("GPU-100", 0.0)] if known else []
    )


def test_a_whole_gpu_that_is_not_measured_is_never_silent_though_nobody_is_on_it() -> None:
    driver = PartsAreNotMeasured(0)
    driver.parts, driver.first_unmeasured = {}, 0
    assert Nvml(lambda: driver, parts=True).sample(0.0) == ()


def test_a_process_may_call_itself_what_is_no_text() -> None:
    """Any process may name itself by prctl, also with bytes that are no UTF-8: it must not end the look."""
    program = (
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'\\xff\\xfeminer\\n', 0, 0, 0); "
        "print('named', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"named\n"
            driver = Driver(1)
            driver.processes = [SimpleNamespace(pid=process.pid, usedGpuMemory=5)]
            [sample] = Nvml(lambda: driver).sample(0.0)
        finally:
            process.kill()
    assert [(one.pid, one.name) for one in sample.processes] == [(process.pid, "\ufffd\ufffdminer")]


def use(pid: int, percent: int, at: int = 1) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, smUtil=percent, timeStamp=at)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([use(1, 30), use(1, 50, at=2), use(9, 9)], [50, 0]),
        (NothingFound("no process ran"), [0, 0]),
        (DriverError("not supported"), [None, None]),
    ],
)
def test_the_use_of_each_process_is_asked_where_a_gpu_is_shared(
    said: list[SimpleNamespace] | DriverError, found: list[float | None]
) -> None:
    driver = Driver(1)
    driver.processes = [SimpleNamespace(pid=pid, usedGpuMemory=5) for pid in (1, 2)]
    driver.use = said
    nvml = Nvml(lambda: driver)
    [sample] = nvml.sample(0.0, by_process={"GPU-0"})
    assert [process.utilisation_percent for process in sample.processes] == found
    assert sample.power_watts == 61.5
    [sample] = nvml.sample(0.0)
    assert [process.utilisation_percent for process in sample.processes] == [None, None]


def test_old_use_of_a_process_is_not_use_now() -> None:
    driver = Driver(1)
    driver.processes = [SimpleNamespace(pid=1, usedGpuMemory=5)]
    driver.use = [use(1, 30, at=5)]
    nvml = Nvml(lambda: driver)
    for expected in (30, 0):
        [sample] = nvml.sample(0.0, by_process={"GPU-0"})
        assert sample.processes[0].utilisation_percent == expected


async def test_a_call_that_hangs_in_the_driver_costs_a_sample_not_the_loop() -> None:
    released = threading.Event()

    class Hanging(Driver):
        calls = 0

        def nvmlDeviceGetCount(self) -> int:
            Hanging.calls += 1
            released.wait(20)
            return super().nvmlDeviceGetCount()

    nvml = Nvml(Hanging)
    telemetry = NvmlTelemetry(nvml, answer_seconds=0.05)
    assert await telemetry.sample() == ()
    assert await telemetry.sample() == ()
    assert Hanging.calls == 1, "a second look does not queue up behind the first"
    released.set()
    assert len(await until(telemetry.sample, "the driver answers again")) == 2


# --- what --gpus means ---------------------------------------------------------------------------


def test_auto_takes_real_gpus_and_simulates_only_without_a_driver() -> None:
    assert [gpu.simulated for gpu in Machine("auto", Nvml(Driver)).look().gpus] == [False, False]
    found = Machine("auto", Nvml(missing)).look()
    assert [gpu.id for gpu in found.gpus] == ["SIM-0", "SIM-1"]
    assert found.simulated
    assert found.problem is not None


def test_none_offers_nothing_and_sim_offers_what_is_asked() -> None:
    assert Machine("none", Nvml(Driver)).look().gpus == ()
    assert len(Machine("sim:3", Nvml(Driver)).look().gpus) == 3
    assert take_inventory("nvidia", lambda: Inventory((), problem="none")).gpus == ()


@pytest.mark.parametrize("choice", ["", "sim", "sim:", "sim:-1", "sim:1000", "all", "sim:2 "])
def test_a_choice_that_means_nothing_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="--gpus"):
        Machine(choice)


def test_real_gpus_never_turn_into_simulated_ones() -> None:
    driver = Driver()
    machine = Machine("auto", Nvml(lambda: driver))
    machine.look()
    driver.present = False
    assert machine.look().gpus == ()
    assert not machine.look().simulated
    assert simulated_gpus(0) == ()
