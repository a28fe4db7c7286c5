"""Which command starts a kernel."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from gpusession.kernels.argv import OURS, STAND_IN, resolve

FILE = ("-f", "{connection_file}")


@pytest.mark.parametrize("module", ["ipykernel_launcher", "ipykernel", "ipykernel.kernelapp"])
def test_stock_ipykernel_of_our_own_python_is_replaced(module: str) -> None:
    argv = (sys.executable, "-Xfrozen_modules=off", "-m", module, *FILE)
    assert resolve(argv) == ((sys.executable, "-Xfrozen_modules=off", "-m", OURS, *FILE), True)


def test_the_command_of_the_gpu_kernel_spec_is_our_kernel_inside_the_server() -> None:
    assert resolve((sys.executable, "-m", STAND_IN, *FILE)) == ((sys.executable, "-m", OURS, *FILE), True)


def test_a_python_without_ours_is_started_as_its_kernel_spec_says(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    argv = (str(tmp_path / "env/bin/python"), "-m", "ipykernel_launcher", *FILE)
    assert resolve(argv) == (argv, False)


@pytest.mark.parametrize(
    "argv",
    [
        ("/no/such/python", "-m", "ipykernel_launcher", *FILE),
        ("R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"),
        (sys.executable, "-m", "bash_kernel", *FILE),
        (sys.executable, "-m"),
    ],
)
def test_other_kernels_are_left_alone(argv: tuple[str, ...]) -> None:
    assert resolve(argv) == (argv, False)
