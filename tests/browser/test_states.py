"""Saved states in the page: what was left is made again; compare, restore in part, delete; a crash."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.visitor import Visitor
from tests.running import RunningHub


def at_work(hub: RunningHub, visitor: Visitor) -> Notebook:
    visitor.sign_in()
    visitor.start()
    lab = Lab(visitor)
    lab.wait_until_up()
    visitor.put_notebook(
        "base.ipynb",
        "import sqlite3, numpy as np\n"
        "conn = sqlite3.connect(':memory:')\n"
        "conn.execute('create table t as select 7 as n')\n"
        "numbers = np.arange(10)",
    )
    notebook = lab.open_from_files("base.ipynb")
    notebook.run_existing(0)
    return notebook


def test_what_a_move_left_is_made_again_with_one_click(hub: RunningHub, enter: Enter) -> None:
    kim = enter(hub, "kim")
    notebook = at_work(hub, kim)
    page = kim.page
    notebook.switch.flip()
    details = notebook.switch.popover("Before it moves to the GPU")
    expect(details).to_be_visible(timeout=90_000)
    expect(details).to_contain_text("Cell [1] makes it again: re-run it.")
    kim.picture("left")
    details.get_by_role("button", name="Move anyway").click()
    notebook.switch.expect_on()
    page.get_by_role("button", name="Make again…").click(timeout=60_000)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Make conn again?")
    expect(dialog).to_contain_text("[1]")
    kim.picture("cells")
    dialog.get_by_role("button", name="Re-run 1 cell").click()
    expect(dialog).to_be_hidden()
    assert notebook.run("print(conn.execute('select n from t').fetchone())") == "(7,)"
    kim.picture("made-again")


def test_states_are_looked_into_compared_and_restored_in_part(hub: RunningHub, enter: Enter) -> None:
    lou = enter(hub, "lou")
    notebook = at_work(hub, lou)
    lab, page = notebook.lab, lou.page
    notebook.run("%gpustate exclude conn")
    for cell in ("kept = 1; other = 1", "kept = 2; numbers[0] = 9; del other; fresh = 3"):
        notebook.run(cell)
        lab.run_command("Save the Variables of This Notebook")
        expect(page.get_by_text(re.compile(r"Saved \d+ variables")).last).to_be_visible(timeout=60_000)
    lab.run_command("Show All Saved States")
    states = page.locator(".gpuhub-States")
    expect(states.locator(".gpuhub-States-one")).to_have_count(2)
    expect(states.get_by_role("meter")).to_be_visible()
    lou.picture("states")
    states.get_by_role("checkbox").nth(0).check()
    states.get_by_role("checkbox").nth(1).check()
    states.get_by_role("button", name="Compare", exact=True).click()
    dialog = page.get_by_role("dialog")
    for name, change in {
        "fresh": "added",
        "other": "removed",
        "numbers": "changed",
        "kept": "changed",
    }.items():
        expect(dialog.get_by_role("row", name=re.compile(rf"^{name} "))).to_contain_text(change)
    lou.picture("compared")
    dialog.get_by_role("button", name="Close").click()

    states.get_by_role("button", expanded=False).nth(1).click()
    inside = states.locator(".gpuhub-States-inside")
    expect(inside).to_contain_text("You excluded it.")
    inside.get_by_role("checkbox", name="All variables").uncheck()
    inside.get_by_role("checkbox", name="kept", exact=True).check()
    lou.picture("inside")
    inside.get_by_role("button", name="Restore 1 variable").click()
    expect(page.get_by_text(re.compile("Restored 1 variable")).last).to_be_visible(timeout=60_000)
    lab.front("base.ipynb")
    assert notebook.run("print(kept, numbers[0], fresh)") == "1 9 3"

    page.set_viewport_size({"width": 700, "height": 800})
    lab.run_command("Show All Saved States")
    lou.picture("states-narrow")
    page.set_viewport_size({"width": 1280, "height": 800})
    states.get_by_role("button", name=re.compile("^Delete the state")).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(states.locator(".gpuhub-States-one")).to_have_count(1)


def test_a_crash_comes_back_with_the_automatic_state_and_says_how_old_it_is(
    impatient_hub: RunningHub, enter: Enter
) -> None:
    max_ = enter(impatient_hub, "max")
    max_.watch.expect("console: ")
    notebook = at_work(impatient_hub, max_)
    lab, page = notebook.lab, max_.page
    lab.run_command("Show All Saved States")
    states = page.locator(".gpuhub-States")
    expect(states.get_by_text("by itself")).to_be_visible(timeout=60_000)
    lab.front("base.ipynb")
    notebook.submit("import os; os._exit(9)")
    # JupyterLab's own word about it.
    page.locator(".jp-Dialog", has_text="Kernel Restarting").get_by_role("button", name="Ok").click(
        timeout=60_000
    )
    chip = notebook.switch.chip(re.compile("restored"))
    expect(chip).to_be_visible(timeout=60_000)
    chip.click()
    max_.picture("crashed")
    expect(page.get_by_text(re.compile("the state of less than a minute ago")).first).to_be_visible()
    page.keyboard.press("Escape")
    assert notebook.run("print(numbers.sum())") == "45"
