"""Debian's Chromium, driven by Playwright: how it is found and started."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright, expect

ARGUMENTS = [
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-3d-apis",  # terminals draw text then, which can be read
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
"""Longer than anything that a person would wait for without a word on the page."""


def find() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    raise AssertionError("The browser lane needs Chromium: make system, or apt-get install chromium")


def launch(playwright: Playwright) -> Browser:
    expect.set_options(timeout=PATIENCE_MS)
    return playwright.chromium.launch(executable_path=find(), args=ARGUMENTS)
