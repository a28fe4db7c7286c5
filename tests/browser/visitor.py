"""A person at a real browser: signs in, chooses, starts, stops, with pages that are watched."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect

from tests.browser.watch import Watch
from tests.running import RunningHub

WIDE = {"width": 1280, "height": 900}
START_MS = 90_000
STOP_MS = 120_000


class Visitor:
    """One browser context: cookies, pages, complaints, a trace."""

    def __init__(self, browser: Browser, hub: RunningHub, name: str, artefacts: Path, **look: Any) -> None:
        self.hub, self.name, self.artefacts = hub, name, artefacts
        self.watch = Watch()
        self.context = browser.new_context(**({"viewport": WIDE, "locale": "en-GB"} | look))
        self.context.tracing.start(snapshots=True, screenshots=False)
        self.context.on("page", self.watch.follow)
        self.page = self.context.new_page()

    # --- pictures

    def picture(self, name: str, page: Page | None = None, *, whole: bool = False) -> Path:
        """Keep a screenshot as an artefact."""
        path = self.artefacts / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (page or self.page).screenshot(path=path, full_page=whole, animations="disabled")
        return path

    def close(self, failed: bool) -> None:
        if failed:
            for number, page in enumerate(self.context.pages):
                if not page.is_closed():
                    self.picture(f"failed-{self.name}-{number}", page)
            self.context.tracing.stop(path=self.artefacts / f"trace-{self.name}.zip")
        else:
            self.context.tracing.stop()
        self.context.close()

    # --- the hub

    def goto(self, path: str, page: Page | None = None) -> Page:
        page = page or self.page
        page.goto(self.hub.url + path)
        return page

    def sign_in(self, password: str | None = None) -> None:
        """By the form, as everybody does; ends where the hub leads."""
        if "/hub/login" not in self.page.url:
            self.goto("hub/login")
        self.page.get_by_label("Username").fill(self.name)
        self.page.get_by_label("Password").fill(self.hub.password if password is None else password)
        self.page.get_by_role("button", name="Sign in").click()

    def start(self, editor: str = "JupyterLab", environment: str = "Data science") -> None:
        """Choose and start; ends when the editor's page is open."""
        if not re.search(r"/hub/spawn(\?|$)", self.page.url):
            self.goto("hub/spawn")
        self.page.get_by_role("radio", name=environment).check()
        self.page.get_by_role("radio", name=editor).check()
        self.page.get_by_role("button", name="Start", exact=True).click()
        self.page.wait_for_url(re.compile(f"/user/{self.name}/"), timeout=START_MS)

    def stop_from_own_page(self) -> None:
        """By the button of the hub's own page."""
        self.goto("hub/home")
        self.page.get_by_role("button", name="Stop").click()
        expect(self.page.get_by_role("status")).to_have_text("It is not running.", timeout=STOP_MS)

    # --- beside the browser

    def api(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Ask the hub or a service with the administrator's token: what a test checks, not what it tries."""
        headers = {"Authorization": f"token {self.hub.admin_token}"}
        answer = httpx.request(
            method, self.hub.url + path, headers=headers, timeout=150, trust_env=False, **arguments
        )
        assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def write(self, path: str, text: str) -> None:
        """Put a file into the home of this person (the server runs)."""
        body = {"type": "file", "format": "text", "content": text}
        self.api("PUT", f"user/{self.name}/api/contents/{path}", json=body)

    def read(self, path: str) -> str:
        return str(self.api("GET", f"user/{self.name}/api/contents/{path}").json()["content"])

    def put_notebook(self, path: str, *codes: str) -> None:
        """A notebook with these cells, as if somebody had uploaded it."""
        cells = [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "source": code,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for number, code in enumerate(codes)
        ]
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        body = {"type": "notebook", "content": content}
        self.api("PUT", f"user/{self.name}/api/contents/{path}", json=body)

    def set_lab(self, plugin: str, **settings: Any) -> None:
        """Change one's settings of JupyterLab, as its settings editor does."""
        body = {"raw": json.dumps(settings)}
        self.api("PUT", f"user/{self.name}/lab/api/settings/{plugin}", json=body)

    def leases(self) -> list[dict[str, Any]]:
        """The leases of this person that have not ended."""
        found = self.api("GET", "services/gpu/api/v1/leases?everyone=true").json()["leases"]
        return [lease for lease in found if lease["user"] == self.name and lease["state"] != "ended"]

    def stop_server(self) -> None:
        """Leave nothing behind for the next test."""
        headers = {"Authorization": f"token {self.hub.admin_token}"}
        url = f"{self.hub.url}hub/api/users/{self.name}"
        with httpx.Client(headers=headers, timeout=60, trust_env=False) as http:
            http.delete(f"{url}/server")
            self.wait(lambda: "" not in http.get(url).json().get("servers", {}), "the server to stop", 120)

    def wait(self, check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Ask until the answer is true, while the browser goes on."""
        for _ in range(int(seconds * 5)):
            answer = check()
            if answer:
                return answer
            # A page goes on only while Playwright is waited for.
            if self.context.pages:
                self.context.pages[0].wait_for_timeout(200)
            else:
                time.sleep(0.2)
        raise AssertionError(f"waited {seconds:.0f} s for {what}")
