"""Sign-in by OpenID Connect for real: the hub with what the chart renders, at a provider that runs.

The provider (oidc-provider-mock) is a process of its own, and so are proxy and PostgreSQL: nothing but the
addresses is different from what `values/campus.yaml` gives a campus.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from gpuhub.programs import find_proxy
from tests.charts.chart import MOUNT, RELEASE, ROOT, VALUES, mounted, render_chart
from tests.cluster.controlplane import ControlPlane
from tests.postgres import running_postgres
from tests.unit.spawner.played import free_port

SECRET = "the-clients-secret"
KEYS = ("proxy-token", "broker-token", "culler-token", "admin-token")
SECONDS = 120.0


def until(condition: Callable[[], object], what: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}\n{log.read_text()[-4000:]}"
        time.sleep(0.2)


@contextmanager
def process(log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | environment)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGCONT)
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


class Provider:
    """A provider, and the people that it knows."""

    def __init__(self, port: int, log: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self._port = port

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self._port)]
        # It speaks plain http, here alone.
        with process(self.log, *command, AUTHLIB_INSECURE_TRANSPORT="1") as started:
            until(lambda: answers(self.url), "the provider answers", self.log)
            yield started

    def knows(self, name: str, *groups: str) -> str:
        """Make or change somebody; returns the mail address that names them."""
        mail = f"{name}@example.edu"
        claims = {"email": mail, "groups": list(groups)}
        done = httpx.put(f"{self.url}/users/{name}", json=claims, trust_env=False)
        assert done.status_code == 204, done.text
        return mail


class Campus:
    """Hub, proxy, provider."""

    def __init__(self, url: str, provider: Provider, tokens: dict[str, str], log: Path) -> None:
        self.url, self.provider, self.tokens, self.log = url, provider, tokens, log
        self.provider_process: subprocess.Popen[bytes]

    def browser(self) -> httpx.Client:
        return httpx.Client(timeout=60, trust_env=False, follow_redirects=False)

    def to_provider(self, browser: httpx.Client) -> str:
        """Begin; returns the address at the provider that the hub leads to."""
        return str(browser.get(f"{self.url}hub/oauth_login").headers["location"])

    def back(self, browser: httpx.Client, address: str, **form: str) -> str:
        """Answer the provider's form; returns the address at the hub that it leads back to."""
        return str(browser.post(address, data=form).headers["location"])

    def sign_in(self, browser: httpx.Client, name: str) -> httpx.Response:
        return browser.get(self.back(browser, self.to_provider(browser), sub=name))

    def user(self, mail: str) -> dict[str, Any] | None:
        """Somebody as the broker sees them, with the broker's own token."""
        answer = httpx.get(
            f"{self.url}hub/api/users/{mail}",
            headers={"Authorization": f"token {self.tokens['broker-token']}"},
            trust_env=False,
        )
        return answer.json() if answer.status_code == 200 else None


@pytest.fixture(scope="module")
def campus(tmp_path_factory: pytest.TempPathFactory, installed: ControlPlane) -> Iterator[Campus]:
    folder = tmp_path_factory.mktemp("campus")
    public, hub_port, proxy_api = free_port(), free_port(), free_port()
    url = f"http://127.0.0.1:{public}/"
    provider = Provider(free_port(), folder / "provider.log")
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        started = stack.enter_context(provider.running())
        values = yaml.safe_load((VALUES / "campus.yaml").read_text())["hub"]["auth"]["settings"]
        addresses = {
            "oauth_callback_url": f"{url}hub/oauth_callback",
            "authorize_url": f"{provider.url}/oauth2/authorize",
            "token_url": f"{provider.url}/oauth2/token",
            "userdata_url": f"{provider.url}/userinfo",
        }
        assert addresses.keys() <= values.keys(), "these are what a campus writes too"
        tokens = {name: name.replace("-", "x") * 5 for name in KEYS}
        made = render_chart(
            folder,
            "campus",
            publicUrl="",
            secrets={
                "existing": "",
                "values": {
                    **tokens,
                    "hub-database-url": postgres.database(),
                    "broker-database-url": "postgresql+psycopg://nobody@/none",
                    "oauth-client-secret": SECRET,
                    "trial-token": "t",
                },
            },
            # Groups are asked for again at once, so that tests need not wait for minutes.
            hub={"auth": {"settings": {**addresses, "auth_refresh_age": 1}}},
        )
        mounted(made, "hub", folder / "settings")
        file = folder / "settings/hub.json"
        settings = json.loads(file.read_text().replace(MOUNT, str(folder / "settings")))
        settings |= {
            "bind_url": url,
            "hub_bind_url": f"http://127.0.0.1:{hub_port}",
            "hub_connect_url": f"http://127.0.0.1:{hub_port}",
            "proxy_api_url": f"http://127.0.0.1:{proxy_api}",
        }
        file.write_text(json.dumps(settings))
        proxy = [*find_proxy(), f"--port={public}", f"--api-port={proxy_api}", "--ip=127.0.0.1"]
        proxy += [f"--default-target=http://127.0.0.1:{hub_port}", "--error-target", f"{url}hub/error"]
        stack.enter_context(
            process(folder / "proxy.log", *proxy, CONFIGPROXY_AUTH_TOKEN=tokens["proxy-token"])
        )
        token = installed.kubectl("create", "token", "hub", "-n", RELEASE).strip()
        account = json.loads(installed.kubectl.kubeconfig.read_text())
        account["users"][0]["user"] = {"token": token}
        (folder / "kubeconfig").write_text(json.dumps(account))
        hub = [sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "hub/jupyterhub_config.py")]
        environment = {"GPUHUB_HUB_SETTINGS": str(file), "KUBECONFIG": str(folder / "kubeconfig")}
        stack.enter_context(process(folder / "hub.log", *hub, **environment))
        until(lambda: answers(f"{url}hub/health"), "the hub answers", folder / "hub.log")
        found = Campus(url, provider, tokens, folder / "hub.log")
        found.provider_process = started
        yield found


@pytest.fixture
def browser(campus: Campus) -> Iterator[httpx.Client]:
    with campus.browser() as browser:
        yield browser


def sentence(answer: httpx.Response) -> str:
    """What the page says."""
    main = re.search(r"<main.*?</main>", answer.text, re.DOTALL)
    assert main, answer.text[:2000]
    return " ".join(re.sub(r"<[^>]+>", " ", main[0]).split())


# --- who comes in


def test_a_member_of_a_group_that_is_let_in_signs_in_with_their_groups(
    campus: Campus, browser: httpx.Client
) -> None:
    mail = campus.provider.knows("cyd", "students", "chess")
    answer = campus.sign_in(browser, "cyd")
    assert answer.status_code == 302, sentence(answer)
    assert urlsplit(answer.headers["location"]).path.startswith("/hub/")
    user = campus.user(mail)
    assert user is not None
    assert set(user["groups"]) == {"students", "chess"}, "limits, pools and environments go by these"
    assert user["admin"] is False
    page = browser.get(f"{campus.url}hub/token")
    assert page.status_code == 200
    assert mail in page.text


def test_an_administrator_is_one_by_name_and_not_by_what_the_provider_says(
    campus: Campus, browser: httpx.Client
) -> None:
    mail = campus.provider.knows("ann", "staff")
    assert campus.sign_in(browser, "ann").status_code == 302
    assert (campus.user(mail) or {})["admin"] is True
    other = campus.provider.knows("eve", "students", "admin", "gpuhub-admin")
    with campus.browser() as eves:
        assert campus.sign_in(eves, "eve").status_code == 302
    assert (campus.user(other) or {})["admin"] is False


def test_whoever_is_in_no_such_group_reads_why_and_whom_to_ask(campus: Campus, browser: httpx.Client) -> None:
    mail = campus.provider.knows("out", "alumni")
    answer = campus.sign_in(browser, "out")
    assert answer.status_code == 403
    assert "Neither you nor a group of yours may use this hub. Ask your operator" in sentence(answer)
    assert campus.user(mail) is None


def test_groups_that_change_at_the_provider_change_here(campus: Campus, browser: httpx.Client) -> None:
    mail = campus.provider.knows("kim", "students")
    campus.sign_in(browser, "kim")
    campus.provider.knows("kim", "staff", "chess")
    time.sleep(1.1)  # auth_refresh_age
    assert browser.get(f"{campus.url}hub/token").status_code == 200
    assert set((campus.user(mail) or {})["groups"]) == {"staff", "chess"}


def test_who_has_left_every_group_that_is_let_in_is_signed_out(campus: Campus, browser: httpx.Client) -> None:
    campus.provider.knows("pat", "students")
    campus.sign_in(browser, "pat")
    assert browser.get(f"{campus.url}hub/token").status_code == 200
    campus.provider.knows("pat", "alumni")
    time.sleep(1.1)
    answer = browser.get(f"{campus.url}hub/token")
    assert answer.status_code == 302
    assert "/hub/login" in answer.headers["location"]


# --- sign-ins that are not completed

OLD = "This sign-in was begun in another window, or too long ago. Sign in again."


def test_one_who_does_not_allow_it_is_asked_to_try_again(campus: Campus, browser: httpx.Client) -> None:
    answer = browser.get(campus.back(browser, campus.to_provider(browser), action="deny"))
    assert answer.status_code == 403
    assert "refused, or you did not allow it" in sentence(answer)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=x",
        "state=x",
        "code=x&state=x",
        "code=x&state=eyJzdGF0ZV9pZCI6ICJ4In0=",
        "code=&state=",
        "code=x&state=%00%ff",
    ],
)
@pytest.mark.parametrize("begun", [False, True], ids=["nobody began", "begun"])
def test_a_forged_return_is_refused_in_words(
    campus: Campus, browser: httpx.Client, query: str, begun: bool
) -> None:
    if begun:
        campus.to_provider(browser)
    answer = browser.get(f"{campus.url}hub/oauth_callback?{query}")
    assert (answer.status_code, OLD in sentence(answer)) == (400, True), sentence(answer)


def test_another_persons_return_signs_nobody_in(campus: Campus, browser: httpx.Client) -> None:
    """Somebody begins, and makes another one follow the last link: their accounts must not be joined."""
    campus.provider.knows("mal", "students")
    with campus.browser() as attackers:
        link = campus.back(attackers, campus.to_provider(attackers), sub="mal")
    for begun in (False, True):
        if begun:
            campus.to_provider(browser)
        answer = browser.get(link)
        assert (answer.status_code, OLD in sentence(answer)) == (400, True)
    assert browser.get(f"{campus.url}hub/token").status_code == 302


@pytest.mark.parametrize("code", ["used", "forged"])
def test_a_code_that_the_provider_does_not_know_is_refused_in_words(
    campus: Campus, browser: httpx.Client, code: str
) -> None:
    campus.provider.knows("cyd", "students")
    link = campus.back(browser, campus.to_provider(browser), sub="cyd")
    state = parse_qs(urlsplit(link).query)["state"][0]
    if code == "used":
        kept = dict(browser.cookies)
        assert browser.get(link).status_code == 302
        browser.cookies.clear()
        browser.cookies.update(kept)
        answer = browser.get(link)
    else:
        answer = browser.get(
            f"{campus.url}hub/oauth_callback", params={"code": "of-another-one", "state": state}
        )
    assert answer.status_code == 403
    assert "does not accept this sign-in (any more). Sign in again." in sentence(answer)


def test_a_code_of_another_provider_is_worth_nothing(
    campus: Campus, browser: httpx.Client, tmp_path: Path
) -> None:
    other = Provider(free_port(), tmp_path / "other.log")
    with other.running():
        other.knows("ann", "staff")
        begun = campus.to_provider(browser)
        with campus.browser() as eves:
            elsewhere = begun.replace(campus.provider.url, other.url)
            link = str(eves.post(elsewhere, data={"sub": "ann"}).headers["location"])
        answer = browser.get(link)
    assert answer.status_code == 403
    assert browser.get(f"{campus.url}hub/token").status_code == 302


def test_what_the_provider_says_is_never_on_our_page(campus: Campus, browser: httpx.Client) -> None:
    words = "Your account is locked. Call 555-0100 and tell your password."
    query = {"error": "server_error", "error_description": words}
    answer = browser.get(f"{campus.url}hub/oauth_callback", params=query)
    assert answer.status_code == 400
    assert "The sign-in service reports an error" in sentence(answer)
    assert "555-0100" not in answer.text


def test_a_provider_that_is_away_is_said_and_the_hub_goes_on(
    campus: Campus, browser: httpx.Client, tmp_path: Path
) -> None:
    campus.provider.knows("cyd", "students")
    link = campus.back(browser, campus.to_provider(browser), sub="cyd")
    campus.provider_process.terminate()
    campus.provider_process.wait(20)
    answer = browser.get(link)
    assert answer.status_code == 503
    assert "The sign-in service does not answer at the moment." in sentence(answer)
    assert httpx.get(f"{campus.url}hub/health", trust_env=False).status_code == 200


# --- where it is kept


def test_the_hub_keeps_everything_in_postgresql_and_no_secret_in_its_settings(campus: Campus) -> None:
    folder = campus.log.parent / "settings"
    assert SECRET not in (folder / "hub.json").read_text()
    assert (folder / "secrets/hub-database-url").read_text().startswith("postgresql+psycopg://")
    assert not list(folder.rglob("*.sqlite"))
    assert SECRET not in campus.log.read_text()
