"""A GPU that nobody uses goes back by itself, with a warning and a bounded Keep; one in use never does."""

from __future__ import annotations

import re
import time

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.visitor import Visitor
from tests.running import RunningHub

COUNTDOWN = re.compile(r"idle.*0:[01]\d")
"""How much more than this the switch says depends on its room."""


def at_work(person: Visitor, code: str) -> Notebook:
    person.sign_in()
    person.start()
    lab = Lab(person)
    lab.wait_until_up()
    person.put_notebook("work.ipynb", code)
    notebook = lab.open_from_files("work.ipynb")
    notebook.run_existing(0)
    return notebook


def test_an_idle_gpu_is_warned_about_then_taken_unless_it_is_kept(
    impatient_hub: RunningHub, enter: Enter
) -> None:
    gus, hal = enter(impatient_hub, "gus"), enter(impatient_hub, "hal")
    away = at_work(gus, "import os; found = list(range(5))")
    thinking = at_work(hal, "import os; found = 1")
    away.switch.flip()
    thinking.switch.flip()

    # Both are told where they look: in the switch, as a notification, in the panel.
    expect(away.switch.group).to_contain_text(COUNTDOWN, timeout=60_000)
    gus.picture("warning")
    expect(thinking.switch.group).to_contain_text(COUNTDOWN, timeout=60_000)
    panel = thinking.lab.panel
    expect(panel.get_by_role("alert")).to_contain_text("Back to the CPU at")
    hal.picture("warning-in-the-panel")
    thinking.switch.button("Keep").click()
    expect(thinking.switch.group).not_to_contain_text(COUNTDOWN)
    thinking.switch.expect_on()
    hal.picture("kept")

    # No answer: saved, moved back, released; the notebook says what happened and when.
    away.switch.expect_cpu()
    news = away.switch.chip(re.compile(r"moved back at \d\d:\d\d"))
    expect(news).to_be_visible()
    gus.picture("taken")
    news.click()
    told = away.switch.popover("Moved back to the CPU")
    expect(told).to_contain_text(
        re.compile(r"Moved back to the server at \d\d:\d\d, because the GPU was idle\.")
    )
    gus.picture("taken-details")
    told.get_by_role("button", name="Dismiss").click()
    expect(news).to_be_hidden()
    assert away.run('print(found, repr(os.environ["CUDA_VISIBLE_DEVICES"]))') == "[0, 1, 2, 3, 4] ''"
    gus.wait(lambda: gus.leases() == [], "the GPU to be free", 20)
    assert [lease["state"] for lease in hal.leases()] == ["active"]


def test_a_loop_that_uses_the_gpu_is_left_alone_with_the_tab_closed(
    impatient_hub: RunningHub, enter: Enter
) -> None:
    ian = enter(impatient_hub, "ian")
    notebook = at_work(ian, "import time; steps = 0")
    notebook.switch.turn_on()
    notebook.submit("stop = time.time() + 30\nwhile time.time() < stop:\n    steps += 1")
    notebook.save()
    address = notebook.page.url
    notebook.page.goto("about:blank")
    lease = ian.leases()[0]["id"]
    until = time.monotonic() + 25  # longer than idle time and warning together
    while time.monotonic() < until:
        (held,) = ian.leases()
        assert (held["id"], held["state"], held["warning"]) == (lease, "active", None)
        notebook.page.wait_for_timeout(1000)
    notebook.page.goto(address)
    notebook.lab.wait_until_up()
    notebook.switch.expect_on()
    ian.picture("still-training")
    assert notebook.run("print(steps > 1000)") == "True"
