"""Chromium, two hubs (one patient, one that takes idle GPUs back within seconds), and people.

Screenshots and, when a test fails, traces lie in ``.artifacts/browser/``; a trace is looked at with
``playwright show-trace FILE``.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.visitor import Visitor
from tests.running import RunningHub

ARTEFACTS = Path(__file__).parents[2] / ".artifacts" / "browser"
OUTCOME = pytest.StashKey[bool]()
Enter = Callable[..., Visitor]

PATIENT = {"ending_deadline_seconds": 30, "worker_grace_seconds": 10}
IMPATIENT = PATIENT | {
    "idle_after_seconds": 8,
    "warn_seconds": 15,
    "keep_minutes": 1,
    "keep_times": 1,
    "automatic_save_seconds": 5,
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[OUTCOME] = True
    return report


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = chromium.launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="package")
def hub_folder() -> Iterator[Path]:
    """A folder that other accounts can pass through: as root, everybody runs under their own."""
    folder = Path(tempfile.mkdtemp(prefix="gpuhub-browser-"))
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def hub(hub_folder: Path) -> Iterator[RunningHub]:
    with RunningHub(hub_folder / "patient", gpus="sim:2", policy=PATIENT) as running:
        yield running


@pytest.fixture(scope="package")
def impatient_hub(hub_folder: Path) -> Iterator[RunningHub]:
    with RunningHub(hub_folder / "impatient", gpus="sim:2", policy=IMPATIENT) as running:
        yield running


@pytest.fixture
def artefacts(request: pytest.FixtureRequest) -> Path:
    folder = ARTEFACTS / re.sub(r"[^\w.-]+", "-", request.node.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def enter(request: pytest.FixtureRequest, browser: Browser, artefacts: Path) -> Iterator[Enter]:
    """``enter(hub, "ann")``: a person sits down at a browser. What the pages complained of fails the test."""
    people: list[Visitor] = []

    def sit_down(hub: RunningHub, name: str, **look: Any) -> Visitor:
        people.append(Visitor(browser, hub, name, artefacts, **look))
        return people[-1]

    yield sit_down
    failed = request.node.stash.get(OUTCOME, False)
    for person in people:
        person.close(failed)
    for hub, name in {(person.hub, person.name): None for person in people}:
        next(p for p in people if (p.hub, p.name) == (hub, name)).stop_server()
    if failed:
        logs = {person.hub.log_file for person in people} | {
            person.hub.data / "logs" / "gpuhub.log" for person in people
        }
        for log in logs:
            if log.exists():
                shutil.copy(log, artefacts / f"{log.parent.parent.name}-{log.name}")
    unexpected = [f"{person.name}: {said}" for person in people for said in person.watch.unexpected]
    assert not unexpected, "\n".join(unexpected)
