"""A browser without pictures: signs in by the form, sends forms with their protection against forgery."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.running import RunningHub


@contextmanager
def signed_in(hub: RunningHub, name: str, password: str | None = None) -> Iterator[httpx.Client]:
    """A client with the cookies of ``name``. Fails when the sign-in does."""
    client, answer = sign_in(hub, name, hub.password if password is None else password)
    try:
        assert answer.status_code == 200, answer.text
        assert "/hub/login" not in str(answer.url), "the sign-in was refused"
        yield client
    finally:
        client.close()


def sign_in(hub: RunningHub, name: str, password: str) -> tuple[httpx.Client, httpx.Response]:
    client = httpx.Client(base_url=hub.url, follow_redirects=True, timeout=60)
    page = client.get("hub/login").text
    data = {"username": name, "password": password, "_xsrf": hidden_xsrf(page)}
    return client, client.post("hub/login", data=data)


def hidden_xsrf(page: str) -> str:
    found = re.search(r'name="_xsrf" value="([^"]+)"', page)
    assert found, page[:2000]
    return found[1]


def form_url(page: str) -> str:
    """Where the choice page sends its form."""
    found = re.search(r'id="spawn_form" action="([^"]+)"', page)
    assert found, page[:4000]
    return found[1].replace("&amp;", "&")
