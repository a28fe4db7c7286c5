"""The cluster's fixtures: one cluster for all tests, a namespace for each, and its story when one fails.

`cluster` is a whole node (root), `control_plane` the bare control plane (no root). Both are started once, and
end with the test run. With GPUHUB_CLUSTER=run the tests use the cluster of `make cluster` instead, which is
quicker while one writes them; what they leave in it is theirs to remove.

Events of all namespaces are printed as they happen, so pytest shows them beside a failure; the pods' logs of
the test's time follow it.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.build import CACHE
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.controlplane import ControlPlane, running_control_plane
from tests.cluster.images import archives
from tests.cluster.kubectl import Kubectl
from tests.cluster.people import notebook, person, stop_all
from tests.cluster.processes import DIE_WITH_PARENT
from tests.cluster.release import USERS, Release
from tests.person import Person, Tab

FOLDER = Path(__file__).parent
TEST_SECONDS = 600
"""A test's longest time here: the first one also starts the cluster and imports images."""
STORY_LINES = 400
SYSTEM = ("default", "kube-system", "kube-public", "kube-node-lease")
EVENT = (
    "jsonpath={.metadata.namespace} {.involvedObject.kind}/{.involvedObject.name} "
    '{.reason}: {.message}{"\\n"}'
)
_CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of one node with four simulated GPUs, and gpuhub's images in it."""
    shared = os.environ.get("GPUHUB_CLUSTER")
    if shared:
        found = Cluster.of(CACHE / shared)
        request.config.stash[_CLUSTER] = found
        yield found
        return
    with running_cluster(CACHE / f"test-{os.getpid()}") as started:
        started.import_images(archives())
        request.config.stash[_CLUSTER] = started
        yield started
        del request.config.stash[_CLUSTER]


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Etcd, API server, controllers and scheduler on 127.0.0.1, without a node."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def gpuhub(cluster: Cluster) -> Iterator[Release]:
    """gpuhub's chart, installed in the cluster; a module's servers and workers go with it."""
    release = Release(cluster)
    release.install()
    yield release
    stop_all(release)
    for name in release.workers():
        cluster.kubectl("delete", "pod", name, "-n", USERS, "--wait=false", "--ignore-not-found")


@pytest.fixture
async def ann(gpuhub: Release) -> AsyncIterator[Person]:
    async for somebody in person(gpuhub, "ann"):
        yield somebody


@pytest.fixture
async def bob(gpuhub: Release) -> AsyncIterator[Person]:
    async for somebody in person(gpuhub, "bob"):
        yield somebody


@pytest.fixture
async def tab(ann: Person) -> Tab:
    """Ann's notebook, with variables."""
    return await notebook(ann)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, gone after it."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    with cluster.namespace(f"t-{words[:50]}".rstrip("-")) as name:
        yield name


@pytest.fixture(autouse=True)
def _events(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the events of all namespaces while a test of the cluster runs."""
    if "cluster" not in request.fixturenames:
        yield
        return
    kubectl: Kubectl = request.getfixturevalue("cluster").kubectl
    words = ["get", "events", "--all-namespaces", "--watch-only", "-o", EVENT]
    with subprocess.Popen(
        [*DIE_WITH_PARENT, *kubectl.command(*words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        printer = threading.Thread(target=_print_lines, args=(process,), name="events")
        printer.start()
        yield
        process.kill()
        printer.join()


def _print_lines(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and report.when != "teardown" and cluster is not None:
        try:
            names = [one["metadata"]["name"] for one in cluster.kubectl.list("namespace")]
            stories = [cluster.story(name) for name in names if name not in SYSTEM]
        except Exception as error:
            stories = [f"The cluster tells no story: {error}"]
        lines = "\n".join(stories).splitlines()[-STORY_LINES:]
        report.sections.append(("the cluster's story", "\n".join(lines)))
    return report
