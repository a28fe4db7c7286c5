"""One look at a node: what fails is said, and costs nothing else."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from gpuhub.telemetry.looking import LOST_SECONDS, PARTS, Eyes, OneAtATime, Seen
from gpuhub.telemetry.nvml import Nvml
from gpuhub.telemetry.podresources import KubeletAway, PodGpus
from tests.launching import until
from tests.unit.telemetry.test_nvml import Driver, DriverError, use


class KubeletByHand:
    """Says which pods have which GPUs, or does not."""

    def __init__(self) -> None:
        self.pods: tuple[PodGpus, ...] = (PodGpus("users", "ann", ("GPU-0",)),)
        self.away = False

    def __call__(self) -> tuple[PodGpus, ...]:
        if self.away:
            raise KubeletAway("The kubelet is away.")
        return self.pods


def eyes(driver: Driver, kubelet: KubeletByHand, **fields: Any) -> Eyes:
    fields = {"clock": lambda: 5.0} | fields
    return Eyes(
        Nvml(lambda: driver, parts=True),
        pods_of=kubelet,
        pod_of=lambda pid: {1: "uid-a", 2: "uid-b"}.get(pid),
        pod_uids=lambda: {("users", "ann"): "uid-a", ("users", "bob"): "uid-b"},
        **fields,
    )


def devices(seen: Seen) -> list[str]:
    return [sample.device_id for sample in seen.samples]


async def test_a_look_shows_gpus_their_processes_pods_and_who_has_them() -> None:
    driver, kubelet = Driver(1), KubeletByHand()
    driver.processes = [SimpleNamespace(pid=1, usedGpuMemory=5), SimpleNamespace(pid=9, usedGpuMemory=6)]
    seen = await eyes(driver, kubelet).look()
    assert (seen.at, seen.problem, seen.pods) == (5.0, None, kubelet.pods)
    assert [gpu.id for gpu in seen.gpus] == ["GPU-0"]
    assert [(one.pid, one.pod_uid) for one in seen.samples[0].processes] == [(1, "uid-a"), (9, None)]


async def test_a_kubelet_that_is_away_costs_the_pods_alone() -> None:
    kubelet = KubeletByHand()
    kubelet.away = True
    seen = await eyes(Driver(2), kubelet).look()
    assert (devices(seen), seen.pods, seen.problem) == (["GPU-0", "GPU-1"], None, "The kubelet is away.")


async def test_a_driver_that_is_away_costs_the_samples_alone() -> None:
    driver, kubelet = Driver(1), KubeletByHand()
    driver.present = False
    seen = await eyes(driver, kubelet).look()
    assert (devices(seen), seen.pods) == ([], kubelet.pods)
    assert "No NVIDIA driver answers" in str(seen.problem)


async def test_a_gpu_that_is_lost_is_named_and_hides_no_other() -> None:
    driver, now = Driver(3), [0.0]
    look = eyes(driver, KubeletByHand(), clock=lambda: now[0])
    assert (await look.look()).problem is None
    driver.lost = {1}
    seen = await look.look()
    assert devices(seen) == ["GPU-0", "GPU-2"]
    assert seen.problem == "GPUs that were there before do not answer: GPU-1."
    driver.lost = set()
    assert (await look.look()).problem is None
    driver.lost = {2}
    now[0] += LOST_SECONDS
    assert (await look.look()).problem is None, "what is gone for good is not spoken of for ever"


async def test_a_gpu_whose_use_is_not_told_is_named_as_such() -> None:
    class Mute(Driver):
        def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:
            raise DriverError("not supported")

    seen = await eyes(Mute(1), KubeletByHand()).look()
    assert (len(seen.gpus), devices(seen)) == (1, [])
    assert "does not tell how busy they are: GPU-0" in str(seen.problem)


async def test_shares_are_measured_by_pod_from_the_second_look_on() -> None:
    driver, kubelet = Driver(1), KubeletByHand()
    kubelet.pods = (PodGpus("users", "ann", ("GPU-0::0",)), PodGpus("users", "bob", ("GPU-0::1",)))
    driver.processes = [SimpleNamespace(pid=pid, usedGpuMemory=5) for pid in (1, 2)]
    driver.now[0], driver.use = 70, [use(1, 70)]
    look = eyes(driver, kubelet)
    await look.look()
    driver.use = [use(1, 70, at=2)]
    seen = await look.look()
    assert [(one.device_id, one.utilisation_percent) for one in seen.samples] == [
        ("GPU-0", 70),
        ("GPU-0::0", 70),
        ("GPU-0::1", 0),
    ]


async def test_a_gpu_that_does_not_exist_says_so_by_its_name() -> None:
    class Played(Driver):
        def nvmlDeviceGetName(self, index: int) -> str:
            return "NVIDIA H100 (simulated)" if index else "NVIDIA H100"

    seen = await eyes(Played(2), KubeletByHand()).look()
    assert [gpu.simulated for gpu in seen.gpus] == [False, True]


async def test_a_driver_that_hangs_hides_no_pod_and_is_not_asked_twice() -> None:
    released, asked = threading.Event(), []

    class Hanging(Driver):
        def nvmlDeviceGetCount(self) -> int:
            asked.append(1)
            released.wait(20)
            return super().nvmlDeviceGetCount()

    kubelet = KubeletByHand()
    look = eyes(Hanging(1), kubelet, answer_seconds=0.05)
    for _ in range(3):
        seen = await look.look()
        assert (seen.pods, seen.problem) == (kubelet.pods, "The NVIDIA driver does not answer in time.")
    assert len(asked) == 1
    released.set()

    async def sees() -> bool:
        return devices(await look.look()) == ["GPU-0"]

    await until(sees, "the driver answers again")


async def test_an_answer_that_came_too_late_is_not_taken_for_one_about_now() -> None:
    said = iter(range(10))
    gate = threading.Event()

    def slow() -> int:
        number = next(said)
        if number == 0:
            gate.wait(20)
        return number

    asking = OneAtATime(slow, 0.05)
    with pytest.raises(TimeoutError):
        await asking.answer()
    gate.set()
    await until(lambda: asking._asking is None or asking._asking.done(), "it has answered")
    assert await asking.answer() == 1


async def test_whatever_is_raised_is_said_not_thrown() -> None:
    def broken() -> tuple[PodGpus, ...]:
        raise RuntimeError("secret detail")

    class Broken(Driver):
        def nvmlDeviceGetCount(self) -> int:
            raise ZeroDivisionError

    look = Eyes(Nvml(Broken), pods_of=broken, pod_uids=dict)
    seen = await look.look()
    assert str(seen.problem).split(". ") == [
        "The NVIDIA driver cannot be asked (ZeroDivisionError)",
        "The kubelet cannot be asked (RuntimeError).",
    ]


async def test_on_a_node_with_divided_gpus_it_is_always_said_what_is_not_known_of_them() -> None:
    """Said once and for all: a sentence that came and went with each lease would fill the broker's log."""

    class Divided(Driver):
        def nvmlDeviceGetUUID(self, index: int) -> str:
            return f"MIG-{index}" if index >= 100 else super().nvmlDeviceGetUUID(index)

        def nvmlDeviceGetUtilizationRates(self, index: int) -> SimpleNamespace:
            if index >= 100:
                raise DriverError("not supported")
            return super().nvmlDeviceGetUtilizationRates(index)

    driver = Divided(1)
    driver.parts = {0: 2}
    look = eyes(driver, KubeletByHand())
    quiet = await look.look()
    driver.processes = [SimpleNamespace(pid=1, usedGpuMemory=5)]
    busy = await look.look()
    assert (devices(quiet), devices(busy)) == (["MIG-100", "MIG-101"], [])
    assert quiet.problem == busy.problem == PARTS
    assert "telemetry: dcgm" in PARTS
