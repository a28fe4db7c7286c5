"""What a page complained of: errors on its console, exceptions, answers that failed.

A test fails on any complaint that it did not expect: a page that looks right and fills the console
is broken in a way that only some of its users will see.
"""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Error, Page, Request, Response

ALWAYS = (
    # A page that is left cuts off what it was asking for.
    r"net::ERR_ABORTED",
)
REPEATED = r"^console: Failed to load resource"
"""Chromium's own line about an answer that `_response` reports with its address."""


class Watch:
    """Listens to every page of one person. Expect with regular expressions on whole complaints."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._expected = [re.compile(pattern) for pattern in (*ALWAYS, REPEATED)]

    def follow(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", self._error)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def expect(self, *patterns: str) -> None:
        """These complaints belong to what the test does."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    @property
    def unexpected(self) -> list[str]:
        return [said for said in self.complaints if not any(known.search(said) for known in self._expected)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text[:500]}")

    def _error(self, error: Error) -> None:
        self.complaints.append(f"exception: {str(error)[:1000]}")

    def _failed(self, request: Request) -> None:
        self.complaints.append(f"failed: {request.method} {_path(request.url)} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            said = f"status {response.status}: {response.request.method} {_path(response.url)}"
            self.complaints.append(said)


def _path(url: str) -> str:
    """The address without its query, which may hold a token."""
    return url.split("?")[0]
