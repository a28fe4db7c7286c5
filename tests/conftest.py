"""What all lanes share: which tests a machine can run, and that CI skips nothing.

A test that cannot run here says so loudly; on CI (environment variable CI) a skip is a failure,
except for those that want a real GPU, which are left out by their marker and counted.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HAS_NVIDIA = Path("/proc/driver/nvidia/version").exists()
IS_ROOT = os.geteuid() == 0
ON_CI = os.environ.get("CI", "") not in ("", "0", "false")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without_gpu = [item for item in items if item.get_closest_marker("gpu")] if not HAS_NVIDIA else []
    if without_gpu:
        config.hook.pytest_deselected(items=without_gpu)
        items[:] = [item for item in items if item not in without_gpu]
    if not IS_ROOT:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="wants root: other Unix accounts, device files"))


def pytest_report_header() -> list[str]:
    return [
        f"real GPU: {'yes' if HAS_NVIDIA else 'none here: tests marked gpu are left out'}",
        f"root: {'yes' if IS_ROOT else 'no: tests marked root are skipped'}",
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if ON_CI and skipped and exitstatus == 0:
        reporter.write_line(f"{skipped} skipped: on CI nothing may be skipped", red=True)
        session.exitstatus = 1
