"""What a person finds who comes back: after a reload, in another tab, after the server or the hub ended."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PATIENT, Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.visitor import Visitor
from tests.running import RunningHub

RIGHT_WITHIN_MS = 2_000
TWO_STARTS_SECONDS = 600
NO_HUB = (r"status (4\d\d|5\d\d)", r"WebSocket connection", r"failed: ", r"console: ")
"""What pages complain of while nothing answers them."""


@pytest.fixture
def own_hub(hub_folder: Path) -> Iterator[RunningHub]:
    """A hub to be ended, that comes again at the same address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with RunningHub(hub_folder / f"own-{port}", "--port", str(port), policy=PATIENT) as running:
        yield running


def at_work_on_a_gpu(hub: RunningHub, visitor: Visitor) -> Notebook:
    """A notebook on a GPU, whose variables the move there has saved."""
    visitor.sign_in()
    visitor.start()
    lab = Lab(visitor)
    lab.wait_until_up()
    visitor.put_notebook(
        "study.ipynb",
        "import pandas as pd\n"
        "scores = pd.Series([3, 1, 2], name='score')\n"
        "def best():\n    return int(scores.max())",
    )
    notebook = lab.open_from_files("study.ipynb")
    notebook.run_existing(0)
    notebook.run("scores = scores * 10")
    notebook.switch.turn_on()
    notebook.save()
    return notebook


def restored_by_the_offer(visitor: Visitor, notebook: Notebook) -> None:
    offer = notebook.switch.chip(re.compile(r"restore \d\d:\d\d\?"))
    expect(offer).to_be_visible(timeout=60_000)
    offer.click()
    details = notebook.switch.popover("A saved state is waiting")
    expect(details).to_contain_text("scores")
    visitor.picture("offer")
    details.get_by_role("button", name="Restore", exact=True).click()
    expect(offer).to_be_hidden(timeout=60_000)
    assert notebook.run("print(scores.tolist(), best())") == "[30, 10, 20] 30"
    visitor.picture("restored")


def test_a_reload_and_a_second_tab_show_what_is(hub: RunningHub, enter: Enter) -> None:
    jan = enter(hub, "jan")
    # A kernel tells each tab about the other's widgets: so it is without gpuhub, too.
    jan.watch.expect("console: Comm not found for comm id")
    jan.sign_in()
    jan.start()
    lab = Lab(jan)
    lab.wait_until_up()
    jan.put_notebook("work.ipynb", "kept = 5")
    notebook = lab.open_from_files("work.ipynb")
    notebook.run_existing(0)
    notebook.switch.turn_on()
    notebook.save()

    jan.page.reload()
    lab.wait_until_up()
    expect(notebook.switch.group).to_be_visible(timeout=60_000)
    notebook.switch.expect_on(RIGHT_WITHIN_MS)

    # A second tab in a workspace of its own: the same, and the same after each flip.
    other = Lab(jan, jan.context.new_page())
    jan.goto(f"user/{jan.name}/lab/workspaces/second/tree/work.ipynb", other.page)
    other.wait_until_up()
    twin = Notebook(other)
    twin.wait_until_ready()
    twin.switch.expect_on()
    twin.switch.flip()
    twin.switch.expect_cpu()
    notebook.switch.expect_cpu(RIGHT_WITHIN_MS)
    notebook.switch.turn_on()
    twin.switch.expect_on(RIGHT_WITHIN_MS)
    jan.picture("second-tab", other.page)
    assert notebook.run("print(kept)") == "5"


def test_after_the_server_was_stopped_a_notebook_offers_its_variables_and_restores_them(
    hub: RunningHub, enter: Enter
) -> None:
    kay = enter(hub, "kay")
    kay.sign_in()
    kay.start()
    lab = Lab(kay)
    lab.wait_until_up()
    kay.put_notebook(
        "study.ipynb",
        "import pandas as pd\n"
        "scores = pd.Series([3, 1, 2], name='score')\n"
        "def best():\n    return int(scores.max())",
    )
    notebook = lab.open_from_files("study.ipynb")
    notebook.run_existing(0)
    notebook.switch.turn_on()
    notebook.run("scores = scores * 10")
    notebook.save()

    # JupyterLab's menu leads to the hub's page, in a tab of its own.
    with kay.context.expect_page() as opened:
        lab.menu("File", "Hub Control Panel")
    hub_page = opened.value
    hub_page.get_by_role("button", name="Stop").click()
    expect(hub_page.get_by_role("status")).to_have_text("It is not running.", timeout=120_000)
    kay.picture("stopped", hub_page)
    assert kay.leases() == []
    hub_page.close()

    kay.watch.expect(r"status (424|503|404|403|502)", r"WebSocket connection", r"failed: ")
    kay.goto("hub/spawn")
    kay.start()
    lab.open("study.ipynb")
    offer = notebook.switch.chip(re.compile(r"restore \d\d:\d\d\?"))
    expect(offer).to_be_visible()
    kay.picture("offer")
    offer.click()
    details = notebook.switch.popover("A saved state is waiting")
    expect(details).to_contain_text("scores")
    kay.picture("offer-details")
    details.get_by_role("button", name="Restore", exact=True).click()
    expect(offer).to_be_hidden(timeout=60_000)
    assert notebook.run("print(scores.tolist(), best())") == "[30, 10, 20] 30"
    kay.picture("restored")


@pytest.mark.timeout(TWO_STARTS_SECONDS)
def test_after_the_whole_hub_was_ended_with_ctrl_c_a_notebook_offers_its_variables(
    own_hub: RunningHub, enter: Enter
) -> None:
    leo = enter(own_hub, "leo")
    notebook = at_work_on_a_gpu(own_hub, leo)
    leo.watch.expect(*NO_HUB)
    assert own_hub.stop(signal.SIGINT) == 0
    leo.picture("while-it-is-away")
    own_hub.start()
    assert leo.leases() == []
    leo.goto("hub/spawn")
    leo.start()
    notebook.lab.open("study.ipynb")
    notebook.switch.expect_cpu()
    restored_by_the_offer(leo, notebook)


@pytest.mark.timeout(TWO_STARTS_SECONDS)
def test_after_the_machine_went_down_a_notebook_offers_its_variables(
    own_hub: RunningHub, enter: Enter
) -> None:
    mia = enter(own_hub, "mia")
    notebook = at_work_on_a_gpu(own_hub, mia)
    mia.watch.expect(*NO_HUB)
    everything = psutil.Process(own_hub.pid).children(recursive=True)
    own_hub.kill()
    for process in everything:
        if process.is_running():
            process.kill()
    own_hub.start()
    mia.goto("hub/spawn")
    mia.start()
    notebook.lab.open("study.ipynb")
    notebook.switch.expect_cpu()
    restored_by_the_offer(mia, notebook)
    notebook.switch.turn_on()
    assert notebook.run("print(best())") == "30"


@pytest.mark.timeout(TWO_STARTS_SECONDS)
def test_after_a_kill_of_the_hub_alone_a_notebook_goes_on_with_its_gpu(
    own_hub: RunningHub, enter: Enter
) -> None:
    noa = enter(own_hub, "noa")
    notebook = at_work_on_a_gpu(own_hub, noa)
    [lease] = noa.leases()
    noa.watch.expect(*NO_HUB)
    own_hub.kill()
    own_hub.start()
    notebook.lab.open("study.ipynb")
    notebook.switch.expect_on()
    assert notebook.run("print(scores.tolist(), best())") == "[30, 10, 20] 30"
    assert [one["id"] for one in noa.leases()] == [lease["id"]]
    notebook.switch.turn_off()
    assert notebook.run("print(best())") == "30"
