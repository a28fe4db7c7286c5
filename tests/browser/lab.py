"""JupyterLab in a tab: notebooks with their switch, the GPU panel, a terminal.

Everything is found as a person (or a screen reader) finds it: by role and name, by what is written.
JupyterLab's own class names are used where it gives its parts no names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from playwright.sync_api import Locator, Page, WebSocket, expect

from tests.browser.visitor import Visitor

OPEN_MS = 60_000
CELL_MS = 60_000
MOVE_MS = 90_000
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden)"


class Lab:
    """One tab with JupyterLab."""

    def __init__(self, visitor: Visitor, page: Page | None = None) -> None:
        self.visitor, self.page = visitor, page or visitor.page
        self.kernels_heard = 0
        self.channels: list[str] = []
        """Addresses of the websockets to kernels that were opened, in order."""
        self.page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        if "/channels" not in socket.url:
            return
        self.channels.append(socket.url)

        def first(_: object) -> None:
            socket.remove_listener("framereceived", first)
            self.kernels_heard += 1

        socket.on("framereceived", first)

    @property
    def path(self) -> str:
        return f"user/{self.visitor.name}/lab"

    def open(self, notebook: str | None = None) -> Notebook | None:
        """Go there, as with a bookmark; with a notebook, until its kernel is ready."""
        if notebook is None:
            self.visitor.goto(self.path, self.page)
            self.wait_until_up()
            return None
        heard = self.kernels_heard
        self.visitor.goto(f"{self.path}/tree/{notebook}", self.page)
        self.wait_until_up()
        return Notebook(self).wait_until_ready(heard)

    def wait_until_up(self) -> None:
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=OPEN_MS)
        expect(self.page.get_by_role("menubar")).to_be_visible(timeout=OPEN_MS)

    def new_notebook(self) -> Notebook:
        """By the launcher's card."""
        card = self.page.locator(
            '.jp-LauncherCard[data-category="Notebook"]', has_text="Python 3 (ipykernel)"
        )
        heard = self.kernels_heard
        card.first.click()
        return Notebook(self).wait_until_ready(heard)

    def open_from_files(self, name: str) -> Notebook:
        """By a double click in the file browser; the tab is the front one afterwards."""
        files = self.page.locator(".jp-DirListing-item", has_text=name)
        if not files.first.is_visible():
            self.page.get_by_role("button", name="Refresh the file browser").click()
        heard = self.kernels_heard
        files.first.dblclick()
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-current", has_text=name)).to_be_visible()
        return Notebook(self).wait_until_ready(heard)

    def front(self, name: str) -> None:
        """Bring an open tab to the front."""
        self.page.locator("#jp-main-dock-panel .lm-TabBar-tab", has_text=name).click()

    def menu(self, name: str, item: str) -> None:
        self.page.get_by_role("menubar").get_by_role("menuitem", name=name).click()
        self.page.get_by_role("menu").get_by_text(item, exact=True).click()

    def run_command(self, label: str) -> None:
        """Through the command palette."""
        self.page.keyboard.press("Control+Shift+C")
        palette = self.page.locator(".lm-CommandPalette-input")
        palette.fill(label)
        self.page.locator(".lm-CommandPalette-item", has_text=label).first.click()

    @property
    def panel(self) -> Locator:
        """The GPU panel, opened by its tab in the left bar."""
        found = self.page.locator(".gpuhub-Panel")
        if not found.is_visible():
            self.page.get_by_role("tab", name="GPU").click()
        expect(found).to_be_visible()
        return found

    def release(self, question: str | None = None) -> None:
        """By the panel's button; where several things would move back, it asks first."""
        self.panel.get_by_role("button", name="Release", exact=True).click()
        if question is not None:
            asked = self.page.get_by_role("dialog", name="Release the GPU?")
            expect(asked).to_contain_text(question)
            asked.get_by_role("button", name="Release").click()

    def terminal(self) -> Terminal:
        # JupyterLab paints terminals; for screen readers it writes them too.
        self.visitor.set_lab("@jupyterlab/terminal-extension:plugin", screenReaderMode=True)
        self.page.reload()
        self.wait_until_up()
        self.page.locator(".jp-LauncherCard", has_text="Terminal").click()
        return Terminal(self.page)


class Notebook:
    """The notebook in front."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.page = lab, lab.page
        self.panel = self.page.locator(NOTEBOOK)
        self.cells = self.panel.locator(".jp-Notebook .jp-CodeCell")
        self.switch = Switch(self)

    def wait_until_ready(self, heard_before: int = 0) -> Self:
        """Until a cell would really be sent: JupyterLab says "idle" before it is connected, and then
        drops what one submits."""
        expect(self.panel).to_have_count(1, timeout=OPEN_MS)
        self.lab.visitor.wait(lambda: self.lab.kernels_heard > heard_before, "the kernel to be connected")
        # In the toolbar, or, where that is narrow, in the status bar alone.
        sign = self.panel.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        words = self.page.locator("#jp-main-statusbar", has_text="| Idle")
        expect(sign.or_(words).first).to_be_attached(timeout=OPEN_MS)
        return self

    def cell(self, index: int) -> Locator:
        return self.panel.locator(f'.jp-CodeCell[data-windowed-list-index="{index}"]')

    def submit(self, code: str) -> int:
        """Write into the last cell and press Shift+Enter; returns the cell's index at once."""
        last = self.cells.last
        index = int(last.get_attribute("data-windowed-list-index") or 0)
        last.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        expect(self.cell(index + 1)).to_be_visible()
        return index

    def result(self, index: int, timeout_ms: float = CELL_MS) -> str:
        """Wait until the cell has its number; returns its output as text."""
        prompt = self.cell(index).locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=timeout_ms)
        outputs = self.cell(index).locator(".jp-OutputArea-output")
        return "\n".join(text.strip() for text in outputs.all_inner_texts())

    def number(self, index: int) -> int:
        """The execution count of a cell that has run."""
        text = self.cell(index).locator(".jp-InputPrompt").inner_text()
        return int(re.sub(r"\D", "", text))

    def run(self, code: str, timeout_ms: float = CELL_MS) -> str:
        return self.result(self.submit(code), timeout_ms)

    def start_existing(self, index: int) -> None:
        """Submit a cell that is already written."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def run_existing(self, index: int, timeout_ms: float = CELL_MS) -> str:
        """Run a cell that is already written."""
        self.start_existing(index)
        return self.result(index, timeout_ms)

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty")).to_have_count(0)


class Switch:
    """The switch in the notebook's toolbar, and what stands beside it."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook, self.page = notebook, notebook.page
        self.group = notebook.panel.get_by_role("group", name="GPU", exact=True)
        self.track = self.group.get_by_role("switch", name="Run on a GPU")

    def expect_cpu(self, timeout_ms: float = MOVE_MS) -> None:
        expect(self.track).to_have_attribute("aria-checked", "false", timeout=timeout_ms)
        expect(self.track).to_have_attribute("aria-disabled", "false", timeout=timeout_ms)

    def expect_on(self, timeout_ms: float = MOVE_MS) -> None:
        expect(self.track).to_have_attribute("aria-checked", "true", timeout=timeout_ms)
        expect(self.group).to_contain_text("simulated", timeout=timeout_ms)

    def flip(self) -> None:
        expect(self.track).to_have_attribute("aria-disabled", "false", timeout=MOVE_MS)
        self.track.click()

    def turn_on(self) -> None:
        self.flip()
        self.expect_on()

    def turn_off(self) -> None:
        self.flip()
        self.expect_cpu()

    def chip(self, text: str | re.Pattern[str]) -> Locator:
        """One of the facts that open a pop-over."""
        return self.group.get_by_role("button").filter(has_text=text)

    def button(self, name: str) -> Locator:
        return self.group.get_by_role("button", name=name, exact=True)

    def popover(self, title: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("dialog", name=title)

    @contextmanager
    def everything_shown(self) -> Iterator[list[str]]:
        """Collect each text that the switch shows, in order, however short it is there."""
        shown: list[str] = []
        handle = self.group.evaluate_handle(
            """group => {
                // React keeps the group; what is inside comes and goes.
                const box = group.parentElement;
                const seen = [];
                const look = () => {
                    const copy = box.cloneNode(true);
                    copy.querySelectorAll('[role=status]').forEach(one => one.remove());
                    const text = copy.textContent.replace(/\\s+/g, ' ').trim();
                    if (seen.at(-1) !== text) seen.push(text);
                };
                look();
                const watch = new MutationObserver(look);
                watch.observe(box, {subtree: true, childList: true, characterData: true, attributes: true});
                return {seen, watch};
            }"""
        )
        try:
            yield shown
        finally:
            shown += handle.evaluate("({seen, watch}) => { watch.disconnect(); return seen; }")
            handle.dispose()


class Terminal:
    """A terminal in front, as a screen reader reads it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator(".jp-Terminal:not(.lm-mod-hidden)")
        self.lines = self.box.locator(".xterm-accessibility-tree")
        expect(self.box.locator(".xterm-helper-textarea")).to_be_attached(timeout=OPEN_MS)
        self.expect(re.compile(r"[$#]"))

    def type(self, line: str) -> None:
        self.box.locator(".xterm-helper-textarea").focus()
        self.page.keyboard.type(line)
        self.page.keyboard.press("Enter")

    def expect(self, text: str | re.Pattern[str], timeout_ms: float = CELL_MS) -> None:
        expect(self.lines).to_contain_text(text, timeout=timeout_ms)
