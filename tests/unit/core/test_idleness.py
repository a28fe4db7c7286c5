"""Silence: utilisation 0 in every sample and no new process, for the whole time."""

from __future__ import annotations

from gpuhub.core.idleness import Look, Silence


def look(utilisation: float = 0.0, *pids: int, size: int = 0) -> Look:
    return Look(utilisation, frozenset(pids), size)


def fed(silence: Silence, *looks: tuple[float, Look | None], device: str = "G") -> Silence:
    for at, one in looks:
        silence.feed(at, {} if one is None else {device: one})
    return silence


def test_silence_counts_from_the_first_sample() -> None:
    silence = fed(Silence(["G"]), (100, look()), (102, look()), (104, look()))
    assert silence.silent_seconds(105) == 4


def test_before_the_first_sample_nothing_is_known() -> None:
    assert Silence(["G"]).silent_seconds(0) is None


def test_one_busy_sample_resets() -> None:
    silence = fed(Silence(["G"]), (0, look()), (5, look()), (10, look(1.0)), (12, look()))
    assert silence.silent_seconds(12) == 2


def test_a_new_process_resets() -> None:
    silence = fed(Silence(["G"]), (0, look(0, 7)), (5, look(0, 7)), (10, look(0, 7, 8)), (12, look(0, 7, 8)))
    assert silence.silent_seconds(12) == 2


def test_a_process_that_ends_is_not_use() -> None:
    silence = fed(Silence(["G"]), (0, look(0, 7, 8)), (5, look(0, 7)))
    assert silence.silent_seconds(5) == 5


def test_memory_alone_is_not_use_but_is_named() -> None:
    silence = fed(Silence(["G"]), (0, look(0, 7, size=5)), (5, look(0, 7, size=5)))
    assert (silence.silent_seconds(5), silence.resident_bytes(5)) == (5, 5)


def test_no_memory_is_not_named() -> None:
    assert fed(Silence(["G"]), (0, look())).resident_bytes(0) is None


def test_a_gap_in_telemetry_is_not_silence() -> None:
    silence = fed(Silence(["G"]), (0, look()), (10, look()), (30, look()), (32, look()))
    assert silence.silent_seconds(32) == 2


def test_an_old_sample_says_nothing_about_now() -> None:
    silence = fed(Silence(["G"]), (0, look()), (10, look()))
    assert silence.silent_seconds(25) == 10
    assert silence.silent_seconds(25.1) is None
    assert silence.resident_bytes(25.1) is None


def test_a_look_that_misses_one_of_the_leases_gpus_is_no_look() -> None:
    silence = Silence(["G", "H"])
    for at in (0.0, 5.0):
        silence.feed(at, {"G": look(), "H": look()})
    silence.feed(10.0, {"G": look()})
    assert silence.silent_seconds(11) == 5


def test_any_busy_gpu_of_several_is_use() -> None:
    silence = Silence(["G", "H"])
    silence.feed(0.0, {"G": look(), "H": look()})
    silence.feed(5.0, {"G": look(), "H": look(30)})
    assert silence.silent_seconds(5) == 0


def test_busy_seconds_are_taken_once() -> None:
    silence = fed(Silence(["G"]), (0, look()), (5, look(40)), (10, look(40)), (15, look()))
    assert silence.take_busy_seconds() == 10
    assert silence.take_busy_seconds() == 0
