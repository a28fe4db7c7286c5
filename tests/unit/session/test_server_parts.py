"""What the Jupyter server extension decides before anything runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpulease import errors
from gpusession.commands import order_from
from gpusession.privatesocket import LONGEST_PATH, NAME, own_folder
from gpusession.server import broker_of, with_own_programs

ORDER = {"argv": ["python", "train.py"], "env": {"A": "1"}, "cwd": "/home/ann"}


def test_a_units_own_folder_is_used_as_it_is(tmp_path: Path) -> None:
    unit = tmp_path / "u"
    unit.mkdir(mode=0o700)
    assert own_folder(str(unit), []) == unit


def test_a_folder_that_others_may_enter_is_not(tmp_path: Path) -> None:
    unit, shared = tmp_path / "u", tmp_path / "run"
    unit.mkdir(mode=0o755)
    shared.mkdir(mode=0o700)
    folder = own_folder(str(unit), [str(shared)])
    assert folder.parent == shared
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_link_to_a_folder_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folder = own_folder(str(tmp_path / "link"), [str(tmp_path)])
    assert folder not in (tmp_path / "link", tmp_path / "real")


def test_a_path_that_is_too_long_for_a_socket_gives_way_to_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir(mode=0o700)
    folder = own_folder(str(deep), [str(deep)])
    try:
        assert len(os.fsencode(folder / NAME)) <= LONGEST_PATH
        assert not any(deep.iterdir())
    finally:
        shutil.rmtree(folder)


def test_the_broker_is_the_one_named_or_the_hubs_service_or_none() -> None:
    assert broker_of({}) is None
    assert broker_of({"GPUHUB_BROKER_URL": "http://b/services/gpu"}) is None, "no token, no broker"
    token = {"JUPYTERHUB_API_TOKEN": "t"}
    assert broker_of({**token, "GPUHUB_BROKER_URL": "http://b/services/gpu"}) is not None
    assert broker_of({**token, "JUPYTERHUB_PUBLIC_HUB_URL": "http://h/hub/"}) is not None
    assert broker_of(token) is None


def test_gpu_is_put_on_the_path_once() -> None:
    once = with_own_programs("/usr/bin")
    assert once.endswith(":/usr/bin")
    assert with_own_programs(once) == once


def test_an_order_is_read_with_its_terminal_kept_within_reason() -> None:
    order = order_from({**ORDER, "terminal": {"kind": "vt100", "columns": 0, "rows": 99_999}})
    assert order.line == "python train.py"
    assert order.terminal is not None
    assert (order.terminal.kind, order.terminal.columns, order.terminal.rows) == ("vt100", 1, 10_000)


@pytest.mark.parametrize(
    "change",
    [
        {"argv": []},
        {"argv": "ls"},
        {"argv": [1]},
        {"argv": ["a\0b"]},
        {"env": {"A=B": "1"}},
        {"env": {"A": 1}},
        {"env": []},
        {"cwd": "relative"},
        {"cwd": None},
        {"pool": 3},
        {"gpus": "many"},
        {"keep": "yes"},
        {"terminal": {"columns": "wide"}},
        {"terminal": 7},
        {"root": True},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(errors.BadRequest):
        order_from({**ORDER, **change})
