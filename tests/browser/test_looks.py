"""The switch beside JupyterLab's own things: nothing is pushed away, in light and in dark."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.visitor import Visitor
from tests.running import RunningHub

USUAL, LARGE = 1280, 1600
THEMES = "@jupyterlab/apputils-extension:themes"


def nothing_is_folded_away(notebook: Notebook) -> None:
    """What JupyterLab shows in this toolbar stays there: the kernel's name and its state, the last."""
    expect(notebook.panel.locator(".jp-Toolbar-responsive-opener")).to_be_hidden()
    expect(notebook.panel.locator(".jp-Toolbar .jp-KernelName")).to_be_visible()
    expect(notebook.panel.locator(".jp-Toolbar .jp-Notebook-ExecutionIndicator")).to_be_visible()


def with_and_without_sidebar(lab: Lab, notebook: Notebook, visitor: Visitor, name: str) -> None:
    for width in (USUAL, LARGE):
        lab.page.set_viewport_size({"width": width, "height": 760})
        expect(lab.panel).to_be_visible()
        nothing_is_folded_away(notebook)
        visitor.picture(f"{name}-{width}-sidebar")
        lab.page.keyboard.press("Control+b")
        expect(lab.page.locator(".gpuhub-Panel")).to_be_hidden()
        nothing_is_folded_away(notebook)
        visitor.picture(f"{name}-{width}")


def test_the_switch_leaves_the_kernels_name_in_the_toolbar_whatever_it_has_to_say(
    hub: RunningHub, enter: Enter
) -> None:
    lia = enter(hub, "lia", viewport={"width": USUAL, "height": 760})
    lia.sign_in()
    lia.start()
    lab = Lab(lia)
    lab.wait_until_up()
    lia.put_notebook("study.ipynb", "import numpy as np\nbig = np.ones(120_000_000)")
    notebook = lab.open_from_files("study.ipynb")
    notebook.run_existing(0)
    switch = notebook.switch
    switch.expect_cpu()
    nothing_is_folded_away(notebook)
    lia.picture("cpu")

    switch.flip()
    expect(switch.group).to_contain_text("getting your GPU", timeout=60_000)
    nothing_is_folded_away(notebook)
    lia.picture("starting")
    expect(switch.group).to_contain_text(re.compile(r"moving.*(saving|restoring) \d+ %"), timeout=60_000)
    nothing_is_folded_away(notebook)
    lia.picture("moving")
    switch.expect_on()
    with_and_without_sidebar(lab, notebook, lia, "light")
    expect(switch.chip("simulated")).to_contain_text("GB")  # there is room for it all

    lia.set_lab(THEMES, theme="JupyterLab Dark")
    notebook.save()
    lia.page.reload()
    lab.wait_until_up()
    expect(lia.page.locator('body[data-jp-theme-light="false"]')).to_be_attached()
    notebook.switch.expect_on()
    with_and_without_sidebar(lab, notebook, lia, "dark")
