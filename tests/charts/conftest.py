"""The chart's fixtures: renders it, and shows it to a bare control plane.

Needs what `tests.cluster.build` makes: helm and kustomize, and for `control_plane` Kubernetes' own programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.chart import (
    CHART,
    RELEASE,
    Render,
    Rendered,
    ensure_account,
    helm,
    render_chart,
    site_options,
)
from tests.cluster.conftest import control_plane
from tests.cluster.controlplane import ControlPlane, running_control_plane

__all__ = ["control_plane", "installed", "namespace_for", "render"]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """``render("lab", hub={"admins": ["ann"]})``: a values file of ours, with further values over it."""

    def rendered(site: str = "defaults", **values: Any) -> Rendered:
        return render_chart(tmp_path, site, **values)

    return rendered


@pytest.fixture
def namespace_for(control_plane: ControlPlane) -> Callable[[str], None]:
    """Make a namespace with the account that every pod needs."""

    def make(name: str) -> None:
        control_plane.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        ensure_account(control_plane, name)

    return make


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The chart, really installed on a bare control plane of its own: no pod runs, every rule counts."""
    with running_control_plane(tmp_path_factory.mktemp("installed")) as plane:
        install(plane, *site_options("cluster-test"))
        ensure_account(plane, "gpuhub-users")
        yield plane


def install(control_plane: ControlPlane, *options: str) -> None:
    words = ["install", RELEASE, str(CHART), "--namespace", RELEASE, "--create-namespace"]
    done = helm(*words, *options, env=control_plane.kubectl.environment())
    assert done.returncode == 0, done.stderr
