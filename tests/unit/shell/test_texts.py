"""What ``gpu`` prints: calm, exact, and never silent about what is simulated."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpusession.shell import texts
from tests.unit.shell.answering import kernel, lease, pool, status

NOW = datetime(2026, 7, 14, 13, 30, tzinfo=UTC)


def shown(found: dict[str, Any]) -> dict[str, str]:
    return dict(texts.status_lines(found, NOW))


def test_without_a_gpu_it_says_what_is_free_and_what_to_do() -> None:
    lines = shown(status())
    assert lines["GPU"] == "none"
    assert lines["free"] == "sim: simulated GPU, 8.0 GB, 1 of 2 free, nobody waits"
    assert "gpu on" in lines["hint"]


def test_with_a_gpu_it_says_which_since_when_and_until_when() -> None:
    lines = shown(status(lease=lease(ends_at="2026-07-14T19:20:00+00:00")))
    at = datetime(2026, 7, 14, 13, 20, tzinfo=UTC).astimezone().strftime("%H:%M")
    assert lines["GPU"].startswith(f"simulated GPU 8.0 GB   (lease 7f3c, exclusive)   on since {at}")
    assert "ends at latest" in lines["GPU"]


def test_use_names_utilisation_memory_and_processes() -> None:
    usage = {
        "utilisation_percent": 71.4,
        "memory_bytes": 31e9,
        "memory_total_bytes": 80e9,
        "processes": [{"pid": 1, "name": "train.ipynb", "memory_bytes": 30_200_000_000}],
    }
    lines = shown(status(lease=lease(usage=usage)))
    assert lines["use"] == "71 %   memory 31.0/80.0 GB   processes: train.ipynb 30.2 GB"


def test_a_simulated_gpu_is_called_so_whatever_its_name() -> None:
    device = {"id": "SIM-0", "index": 0, "name": "H100", "memory_bytes": 80e9, "simulated": True}
    assert "simulated" in texts.gpu_name(lease(devices=[device]), [])
    assert "simulated" in texts.gpu_name(lease(devices=[]), [pool(title="H100")])
    assert "simulated" in texts.pool_line(pool(title="H100"))


def test_a_real_gpu_is_not() -> None:
    device = {"id": "GPU-1", "index": 0, "name": "H100", "memory_bytes": 80e9, "simulated": False}
    assert texts.gpu_name(lease(devices=[device, device], gpus=2), []) == "2 × H100 80.0 GB"


def test_a_wait_names_place_reason_and_estimate() -> None:
    position = {"place": 2, "message": "All GPUs are in use.", "estimated_start": "2026-07-14T13:36:00+00:00"}
    queued = lease(state="queued", position=position, devices=[])
    assert texts.waiting_line(queued, NOW) == "2nd in line · All GPUs are in use · about 6 min"


@pytest.mark.parametrize(
    ("place", "text"),
    [(1, "next"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")],
)
def test_places_are_counted_as_people_count(place: int, text: str) -> None:
    assert texts.ordinal(place) == f"{text} in line"


def test_a_warning_counts_down_and_says_how_to_keep() -> None:
    keep = {"minutes": 30, "times_left": 2}
    warning = {"at": "2026-07-14T13:34:31+00:00", "message": "The GPU is idle.", "keep": keep}
    text = shown(status(lease=lease(warning=warning)))["warning"]
    assert "in 5 min" in text
    assert "`gpu keep` keeps it for 30 min (2 left)." in text


def test_a_warning_that_cannot_be_answered_offers_no_keep() -> None:
    keep = {"minutes": 30, "times_left": 0}
    warning = {"at": "2026-07-14T13:34:31+00:00", "message": "The GPU is idle.", "keep": keep}
    assert "gpu keep" not in shown(status(lease=lease(warning=warning)))["warning"]


def test_a_move_shows_its_sizes() -> None:
    move = {"message": "Saving.", "bytes_done": 8e8, "bytes_total": 1.2e9, "ended_at": None}
    assert shown(status(kernels=[kernel(move=move)]))["notebook"] == "train.ipynb   Saving. 0.8 GB of 1.2 GB"


def test_a_notebook_on_the_server_with_nothing_to_say_is_not_listed() -> None:
    assert "notebook" not in shown(status(kernels=[kernel()]))
    assert "on the GPU" in shown(status(kernels=[kernel(placement="worker")]))["notebook"]


def test_an_unreachable_service_is_said_beside_what_was_known() -> None:
    assert "known last" in shown(status(broker="unreachable"))["note"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(12_400_000_000, "12.4 GB"), (100_000_000, "0.1 GB"), (99_000_000, "99.0 MB"), (512, "1 kB")],
)
def test_sizes_are_gb_with_one_decimal(count: int, text: str) -> None:
    assert texts.size(count) == text


def test_spans_grow_with_their_length() -> None:
    assert [texts.span(one) for one in (0, 45, 300, 11_100)] == ["0 s", "45 s", "5 min", "3:05 h"]


def test_what_stays_behind_comes_with_reason_and_hint() -> None:
    verdicts = [
        {"name": "x", "type": "int", "verdict": "kept"},
        {
            "name": "f",
            "type": "io.TextIOWrapper",
            "verdict": "left",
            "reason": "An open file.",
            "hint": "Open it.",
        },
    ]
    assert texts.verdict_lines(verdicts) == ["f (io.TextIOWrapper): An open file. Open it."]


def test_a_limit_says_used_allowed_and_when_more_comes() -> None:
    quota = {"name": "gpu_hours_per_week", "used": 11.2, "allowed": 20.0, "unit": "h", "frees_at": None}
    assert texts.quota_line(quota, NOW) == "gpu hours per week: 11.2 of 20 h"
    assert texts.quota_line({**quota, "allowed": None}, NOW).endswith("no limit")
