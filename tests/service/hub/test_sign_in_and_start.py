"""From the sign-in to a server: by page and by API, judged alike, without secrets and without a GPU."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import httpx
import psutil
import pytest

from tests.person import Person
from tests.running import RunningHub
from tests.service.hub.browsing import form_url, sign_in, signed_in


def server_process(name: str) -> psutil.Process:
    """The newest of that name: another run's may be on the machine."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        line = " ".join(process.info["cmdline"] or [])
        with contextlib.suppress(psutil.NoSuchProcess):
            if "jupyterhub.singleuser" in line and process.environ().get("JUPYTERHUB_USER") == name:
                found.append(process)
    assert found, f"no server of {name}"
    return max(found, key=lambda process: process.info["create_time"])


def test_a_wrong_password_is_refused(hub: RunningHub) -> None:
    client, answer = sign_in(hub, "ann", "not-the-password")
    client.close()
    assert answer.status_code == 403
    assert "Invalid username or password" in answer.text


def test_the_choice_page_offers_environments_and_says_what_is_free(hub: RunningHub) -> None:
    with signed_in(hub, "ann") as ann:
        page = ann.get("hub/spawn").text
        assert "Start your server" in page
        assert "Data science" in page
        assert "JupyterLab" in page
        assert "Starts without a GPU. Turn one on inside, when you need it." in page
        now = ann.get("hub/gpuhub/now").json()
        assert (now["ok"], now["free"], now["total"], now["waiting"]) == (True, 2, 2, 0)
        assert now["simulated"]
        for name in re.findall(r'"(/hub/gpuhub/static/[^"]+)"', page):
            assert ann.get(name).status_code == 200, name


def test_who_is_not_signed_in_learns_nothing(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.url}hub/gpuhub/now", follow_redirects=False)
    assert answer.status_code in (302, 403)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "nope"}, "There is no environment 'nope'. On offer: base."),
        ({"profile": "base", "editor": "emacs"}, "The option editor has no choice 'emacs'."),
        ({"prefix": "/tmp/mine"}, "The environment base has no option 'prefix'."),
        ({"profile": {"a": 1}}, "The option 'profile' must be a text."),
        (["base"], "must be an object"),
    ],
)
async def test_forged_options_over_the_api_are_refused_with_a_sentence(
    hub: RunningHub, options: Any, sentence: str
) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "forger") as forger:
        answer = await forger.http.post(
            f"{hub.url}hub/api/users/forger/server", headers=forger.headers, json={"user_options": options}
        )
        assert answer.status == 400, await answer.text()
        assert sentence in (await answer.json())["message"]


def test_forged_options_over_the_page_are_refused_with_the_same_sentence(hub: RunningHub) -> None:
    with signed_in(hub, "bea") as bea:
        page = bea.get("hub/spawn").text
        answer = bea.post(form_url(page), data={"profile": "<script>nope"})
        assert answer.status_code == 400
        assert "There is no environment" in answer.text
        assert "<script>nope" not in answer.text
        assert "SpawnException" not in answer.text


def test_a_form_of_another_site_is_refused(hub: RunningHub) -> None:
    with signed_in(hub, "bea") as bea:
        assert bea.post("hub/spawn/bea", data={"profile": "base"}).status_code == 403


def test_a_server_started_from_the_page_opens_the_chosen_editor(hub: RunningHub) -> None:
    with signed_in(hub, "cat") as cat:
        page = cat.get("hub/spawn").text
        fields = {"profile": "base", "profile-option-base--editor": "notebook"}
        answer = cat.post(form_url(page), data=fields)
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 90
        while "/user/cat/tree" not in str(answer.url):
            assert time.monotonic() < deadline, (answer.url, hub.log()[-3000:])
            time.sleep(0.3)
            answer = cat.get("hub/spawn-pending/cat")
        again = cat.get("hub/spawn").text
        assert "Notebook" in again or "/user/cat/" in again


async def test_a_server_has_no_gpu_and_no_secret_of_hub_or_broker(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "dan") as dan:
        await dan.start_server()
        try:
            process = server_process("dan")
            env = process.environ()
            assert env["CUDA_VISIBLE_DEVICES"] == ""
            assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
            assert env["JUPYTER_DEFAULT_PROVISIONER_NAME"] == "gpuhub-provisioner"
            assert env["PATH"].split(":")[0].endswith("/bin")
            secrets = (hub.data / "secrets.json").read_text()
            known = re.findall(r'"([0-9a-f]{36,})"', secrets)
            assert len(known) >= 5
            said = "\0".join([*env.values(), *process.cmdline()])
            assert [secret for secret in known if secret in said] == []
            assert [name for name in env if name.startswith(("CONFIGPROXY", "GPUHUB_HUB"))] == []
            token = env["JUPYTERHUB_API_TOKEN"]
            answer = await dan.http.get(
                f"{hub.url}hub/api/users", headers={"Authorization": f"token {token}"}
            )
            assert answer.status == 403
        finally:
            await dan.stop_server()


@pytest.mark.root
async def test_two_people_run_as_two_accounts_and_read_nothing_of_each_other(hub: RunningHub) -> None:
    if hub.ready["accounts"] != "numbered":
        pytest.skip("other accounts cannot reach this Python or the test's folder")
    async with (
        await Person.enrol(hub.url, hub.admin_token, "eve") as eve,
        await Person.enrol(hub.url, hub.admin_token, "fay") as fay,
    ):
        await eve.start_server()
        await fay.start_server()
        try:
            one, two = server_process("eve"), server_process("fay")
            assert one.uids().real != two.uids().real
            assert 0 not in (one.uids().real, two.uids().real)
            home = hub.data / "homes" / "eve"
            assert home.stat().st_uid == one.uids().real
            assert home.stat().st_mode & 0o077 == 0
        finally:
            await eve.stop_server()
            await fay.stop_server()
