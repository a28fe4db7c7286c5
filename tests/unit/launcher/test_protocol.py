"""The border: what an order may hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gpuspawner.launcher.protocol import REQUEST, Start, UnitOrder

GOOD = {"kind": "worker", "id": "w-7f3c", "prefix": "/opt/python"}


def test_an_order_survives_the_journey() -> None:
    order = UnitOrder(
        **GOOD, args=["--x"], env={"A": "b"}, devices=("SIM-0",), files={"host_key": "k"}, label="7f"
    )
    assert REQUEST.validate_json(Start(order=order).model_dump_json()) == Start(order=order)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../w"},
        {"id": "W-1"},
        {"id": "w-1\n"},
        {"id": ""},
        {"id": "w" * 65},
        {"kind": "shell"},
        {"command": ["id"]},
        {"prefix": "opt/python"},
        {"prefix": "/opt\0/python"},
        {"args": ["a\0b"]},
        {"args": ["x"] * 300},
        {"args": "x"},
        {"env": {"A=B": "c"}},
        {"env": {"": "c"}},
        {"env": {"1A": "c"}},
        {"env": {"A": "b\0c"}},
        {"env": {"A": 1}},
        {"env": {"GPUHUB_UNIT": "s-bob"}},
        {"env": {"GPUHUB_UNIT_RUN": "x"}},
        {"env": {f"A{number}": "x" * 90_000 for number in range(4)}},
        {"files": {"../x": ""}},
        {"files": {".profile": ""}},
        {"files": {"a/b": ""}},
        {"devices": ["a\0"]},
        {"devices": ["../../dev/sda\n"]},
        {"grace_seconds": float("inf")},
        {"grace_seconds": -1},
        {"account": {"uid": -1, "gid": 1, "name": "a", "home": "/h"}},
        {"account": {"uid": 2**32, "gid": 1, "name": "a", "home": "/h"}},
        {"account": {"uid": True, "gid": 1, "name": "a", "home": "/h"}},
        {"account": {"uid": 1, "gid": 1, "name": "a/b", "home": "/h"}},
        {"account": {"uid": 1, "gid": 1, "name": "a", "home": "h"}},
    ],
    ids=str,
)
def test_an_order_that_goes_too_far_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UnitOrder(**{**GOOD, **change})


def test_an_orders_files_are_not_printed() -> None:
    assert "very-private" not in repr(UnitOrder(**GOOD, files={"host_key": "very-private"}))
