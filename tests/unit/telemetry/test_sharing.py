"""What each pod uses of a GPU that several share."""

from __future__ import annotations

from dataclasses import replace

from gpuhub.telemetry.base import ProcessSample, Sample
from gpuhub.telemetry.podresources import PodGpus
from gpuhub.telemetry.sharing import samples_of_shares, shared_devices

UIDS = {("users", "ann"): "uid-a", ("users", "bob"): "uid-b"}
PODS = (PodGpus("users", "ann", ("GPU-0::0",)), PodGpus("users", "bob", ("GPU-0::1",)))
ANN = ProcessSample(1, "python", 300, 40.0, "uid-a")
BOB = ProcessSample(2, "python", 200, 0.0, "uid-b")
LOOK = Sample("GPU-0", 0.0, 42.0, 500, 1000, (ANN, BOB), power_watts=90.0)


def use(look: Sample, pods: tuple[PodGpus, ...] = PODS) -> dict[str, float]:
    return {one.device_id: one.utilisation_percent for one in samples_of_shares([look], pods, UIDS)}


def test_only_gpus_with_shares_are_shared() -> None:
    assert shared_devices((*PODS, PodGpus("users", "cyd", ("GPU-1",)))) == {"GPU-0"}
    assert use(LOOK, (PodGpus("users", "cyd", ("GPU-0",)),)) == {}


def test_each_pod_is_told_its_own_use_and_its_own_processes() -> None:
    ann, bob = samples_of_shares([LOOK], PODS, UIDS)
    assert (ann.utilisation_percent, ann.memory_bytes, ann.processes) == (40, 300, (ANN,))
    assert (bob.utilisation_percent, bob.memory_bytes, bob.processes) == (0, 200, (BOB,))
    assert ann.memory_total_bytes == 1000
    assert ann.power_watts is None, "the power is the whole GPU's"


def test_a_silent_gpu_is_silent_for_all_whatever_else_is_unknown() -> None:
    hidden = replace(ANN, utilisation_percent=None, pod_uid=None)
    assert use(replace(LOOK, utilisation_percent=0.0, processes=(hidden,))) == {"GPU-0::0": 0, "GPU-0::1": 0}


def test_a_busy_gpu_whose_driver_hides_the_use_of_processes_says_nothing_of_anybody() -> None:
    hidden = replace(ANN, utilisation_percent=None)
    assert use(replace(LOOK, processes=(hidden, BOB))) == {}


def test_a_busy_process_that_is_nobodys_may_be_anybodys() -> None:
    stranger = replace(ANN, pod_uid=None)
    assert use(replace(LOOK, processes=(stranger, BOB))) == {}
    silent_stranger = replace(stranger, pid=9, utilisation_percent=0.0)
    assert use(replace(LOOK, processes=(ANN, BOB, silent_stranger))) == {"GPU-0::0": 40, "GPU-0::1": 0}


def test_who_kept_it_busy_and_has_gone_since_may_have_been_anybody() -> None:
    assert use(replace(LOOK, processes=(replace(ANN, utilisation_percent=0.0), BOB))) == {}


def test_a_pod_without_a_known_uid_is_not_judged() -> None:
    pods = (*PODS, PodGpus("users", "new", ("GPU-0::2",)))
    assert use(LOOK, pods) == {"GPU-0::0": 40, "GPU-0::1": 0}


def test_two_shares_of_one_gpu_in_one_pod_show_its_processes_once() -> None:
    first, second = samples_of_shares([LOOK], (PodGpus("users", "ann", ("GPU-0::0", "GPU-0::1")),), UIDS)
    assert (first.memory_bytes, second.memory_bytes) == (300, 0)
    assert second.utilisation_percent == 40
