"""Addresses, orders and environments of the worker, without a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpulease.errors import BadRequest, InvalidOption
from gpusession.kernels.environment import KERNELS_HERE
from gpusession.worker.environment import on_worker
from gpusession.worker.protocol import (
    Ping,
    Run,
    StartKernel,
    TcpAddress,
    UnixAddress,
    read_address,
    read_order,
)
from gpusession.worker.sockets import bound, connected

OWN = {
    "CUDA_VISIBLE_DEVICES": "GPU-1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "NVIDIA_VISIBLE_DEVICES": "GPU-1",
    "GPUHUB_LEASE": "mine",
    "GPUHUB_UNIT_RUN": "worker-run",
    "PATH": "/worker/bin",
}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/x/ssh", UnixAddress("/run/x/ssh")),
        ("tcp:10.0.0.7:2222", TcpAddress("10.0.0.7", 2222)),
        ("tcp:worker-7.users.svc:22", TcpAddress("worker-7.users.svc", 22)),
        ("tcp:[fd00::7]:22", TcpAddress("fd00::7", 22)),
    ],
)
def test_an_address_says_how_to_connect(text: str, address: object) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/run/ssh",
        "unix:relative",
        "unix:/a\0b",
        "tcp:host",
        "tcp:host:",
        "tcp::22",
        "tcp:host:99999",
        "udp:h:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_address(text)


def test_an_order_becomes_what_it_says() -> None:
    run = {"id": 3, "op": "run", "argv": ["a", ""], "env": {"X": ""}, "cwd": "/", "keep": True}
    order = read_order(json.dumps(run).encode())
    assert isinstance(order, Run)
    assert (order.id, order.argv, order.env, order.keep, order.terminal) == (
        3,
        ["a", ""],
        {"X": ""},
        True,
        None,
    )
    kernel = {
        "id": 4,
        "op": "start-kernel",
        "argv": ["a"],
        "env": {},
        "cwd": "/",
        "kernel": "k-1",
        "key": "00ff",
    }
    assert isinstance(read_order(json.dumps(kernel).encode()), StartKernel)
    assert isinstance(read_order(b'{"id": null, "op": "ping"}'), Ping)


def test_a_refused_order_keeps_its_number_so_that_it_can_be_answered() -> None:
    with pytest.raises(BadRequest) as refused:
        read_order(b'{"id": 12, "op": "run", "argv": 1}')
    assert refused.value.details["id"] == 12
    with pytest.raises(BadRequest) as refused:
        read_order(b'{"op": "run"}')
    assert refused.value.details["id"] is None


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(BadRequest) as refused:
        read_order(b'{"id": 1, "op": "run", "argv": ["a"], "cwd": "/", "env": {"TOKEN": ["very-secret"]}}')
    assert "very-secret" not in str(refused.value.as_dict())


# --- environment

HERE = {KERNELS_HERE: "1"}
"""What every program of a worker gets."""


def test_the_devices_are_the_workers_word() -> None:
    asked = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "GPUHUB_LEASE": "other",
        "A": "b",
    }
    assert on_worker(asked, OWN) == {
        "A": "b",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "GPU-1",
        "GPUHUB_LEASE": "mine",
        "GPUHUB_UNIT_RUN": "worker-run",
        **HERE,
    }


def test_without_devices_of_its_own_a_worker_gives_none_away() -> None:
    assert on_worker({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "x"}, {}) == HERE


@pytest.mark.parametrize(
    "name",
    [
        "JUPYTERHUB_API_TOKEN",
        "JUPYTER_TOKEN",
        "JPY_API_TOKEN",
        "CONFIGPROXY_AUTH_TOKEN",
        "GPUHUB_BROKER_TOKEN",
        "GPUHUB_BROKER_URL",
        "GPUHUB_OUR_SECRET",
        "GPUHUB_UNIT",
        "GPUHUB_UNIT_RUN",
    ],
)
def test_a_servers_secrets_and_marks_do_not_reach_the_worker(name: str) -> None:
    assert on_worker({name: "x"}, {}) == HERE


@pytest.mark.parametrize(
    "name", ["PATH", "HF_TOKEN", "WANDB_API_KEY", "GPUHUB_KERNEL_NAME", "JUPYTERHUB_USER", "HOME"]
)
def test_a_persons_own_variables_do(name: str) -> None:
    assert on_worker({name: "x"}, {}) == {name: "x"} | HERE


# --- sockets


async def test_sockets_work_in_folders_with_long_paths(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with bound(folder / "s") as listener:
        listener.listen()
        assert (folder / "s").stat().st_mode & 0o777 == 0o600
        with await connected(folder / "s"):
            pass
        with bound(folder / "s"):  # what an earlier life left is no hindrance
            pass
    with pytest.raises(OSError, match="No such file"):
        await connected(folder / "nothing")


def test_a_worker_starts_without_what_only_hub_and_server_need() -> None:
    foreign = ("gpuhub", "jupyterhub", "jupyter_server", "IPython", "zmq")
    code = f"""
import sys, gpusession.worker.__main__
print([name for name in sys.modules if name.split(".")[0] in {foreign}])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
