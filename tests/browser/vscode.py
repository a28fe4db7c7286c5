"""VS Code in a tab: its explorer, an editor, a terminal."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.visitor import Visitor

OPEN_MS = 90_000

HARMLESS = (
    # Parts of Microsoft's own build that the free one does not have.
    r"vsda(_bg)?\.(js|wasm)",
    # There is no extension gallery, sign-in or mail of a cloud in reach, and none is wanted.
    r"ERR_NAME_NOT_RESOLVED|ERR_INTERNET_DISCONNECTED|ERR_CONNECTION|ERR_FAILED|Failed to fetch",
    r"authentication provider",
    r"open-vsx|marketplace|unpkg|vscode-cdn|gallery|Gallery|extensions query",
    # Its own log, which it writes to the console; leaving the page cuts off what it was reading.
    r"^console: %c\s+ERR",
    r"Blocked a frame|sandbox",
)


class Code:
    """One tab with VS Code, opened at the person's home."""

    def __init__(self, visitor: Visitor, page: Page | None = None) -> None:
        self.visitor, self.page = visitor, page or visitor.page
        visitor.watch.expect(*HARMLESS)
        expect(self.page.locator(".monaco-workbench")).to_be_visible(timeout=OPEN_MS)
        expect(self.page.locator(".explorer-folders-view")).to_be_visible(timeout=OPEN_MS)

    def open(self, name: str) -> None:
        row = self.page.locator(".explorer-folders-view .monaco-list-row", has_text=name)
        expect(row.first).to_be_visible(timeout=OPEN_MS)
        row.first.dblclick()
        expect(self.page.get_by_role("tab", name=re.compile(re.escape(name)))).to_be_visible()
        expect(self.page.locator(".monaco-editor .view-line").first).to_be_visible()

    def append(self, text: str) -> None:
        """Write at the end of the open file, and save."""
        self.page.locator(".monaco-editor .view-line").first.click()
        self.page.keyboard.press("Control+End")
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".tab.active.dirty")).to_have_count(0)

    def command(self, label: str) -> None:
        self.page.keyboard.press("F1")
        box = self.page.locator(".quick-input-widget input")
        expect(box).to_be_visible()
        box.fill(f">{label}")
        self.page.locator(".quick-input-list .monaco-list-row", has_text=label).first.click()

    def open_terminal(self) -> None:
        self.command("Terminal: Create New Terminal")
        expect(self.page.locator(".terminal-wrapper.active .xterm-helper-textarea")).to_be_attached(
            timeout=OPEN_MS
        )
        self.expect_terminal(re.compile(r"[$#]"))

    def type(self, line: str) -> None:
        # Without the focus, what is typed goes into the open file.
        self.page.locator(".terminal-wrapper.active .xterm-helper-textarea").focus()
        self.page.keyboard.type(line)
        self.page.keyboard.press("Enter")

    def expect_terminal(self, text: str | re.Pattern[str], timeout_ms: float = OPEN_MS) -> None:
        rows = self.page.locator(".terminal-wrapper.active .xterm-rows")
        expect(rows).to_contain_text(text, timeout=timeout_ms)
