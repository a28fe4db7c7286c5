"""The hub in a cluster, as people and scripts meet it: sign-in, choice, start, refusals, restarts, stop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.release import USERS, Release
from tests.person import Person, eventually
from tests.service.hub.browsing import form_url, hidden_xsrf

BASE = {"title": "Python", "image": "localhost/gpuhub-base:dev"}
ENVIRONMENTS = [
    BASE | {"name": "base"},
    BASE | {"name": "broken", "image": "localhost/gpuhub-base:not-there"},
    BASE | {"name": "secret", "groups": ["vision"]},
]
POD = "jupyter-hubert"
LOOK = """import os
x = 41
(os.environ['NVIDIA_VISIBLE_DEVICES'], os.path.exists('/var/run/secrets/kubernetes.io'))"""


@pytest.fixture(scope="module")
def gpuhub(cluster: Cluster) -> Iterator[Release]:
    release = Release(cluster)
    release.install({"environments": ENVIRONMENTS})
    yield release
    release.install()


@pytest.fixture
def visitor(gpuhub: Release) -> Iterator[httpx.Client]:
    """Somebody who signed in through the form."""
    with httpx.Client(base_url=gpuhub.url, follow_redirects=True, timeout=60) as client:
        page = client.get("hub/login").text
        form = {"username": "vera", "password": gpuhub.secret("password"), "_xsrf": hidden_xsrf(page)}
        answer = client.post("hub/login", data=form)
        assert "/hub/spawn" in str(answer.url), answer.text[:2000]
        yield client


def test_the_choice_page_offers_what_the_person_may_use(gpuhub: Release, visitor: httpx.Client) -> None:
    page = visitor.get("hub/spawn").text
    for said in ("Start your server", 'value="base"', 'value="broken"', "JupyterLab", "Small"):
        assert said in page
    assert 'value="secret"' not in page
    now = visitor.get("hub/gpuhub/now").json()
    assert (now["ok"], now["total"]) == (True, 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "nope"}, "There is no environment 'nope'. On offer: base, broken."),
        ({"profile": "secret"}, "There is no environment 'secret'. On offer: base, broken."),
        ({"profile": "base", "size": "huge"}, "The option size has no choice 'huge'."),
        ({"image": "evil:1"}, "The environment base has no option 'image'."),
        ({"profile": {"a": 1}}, "The option 'profile' must be a text."),
    ],
)
async def test_forged_options_are_a_clear_400_and_no_failure_of_the_hub(
    gpuhub: Release, options: Any, sentence: str
) -> None:
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, "forger") as forger:
        before = await errors(forger, gpuhub)
        answer = await forger.http.post(
            f"{gpuhub.url}hub/api/users/forger/server", headers=forger.headers, json={"user_options": options}
        )
        assert answer.status == 400, await answer.text()
        assert sentence in (await answer.json())["message"]
        assert await errors(forger, gpuhub) == before


def test_a_forged_form_is_refused_with_the_same_sentence(gpuhub: Release, visitor: httpx.Client) -> None:
    answer = visitor.post(form_url(visitor.get("hub/spawn").text), data={"profile": "<script>nope"})
    assert answer.status_code == 400
    assert "There is no environment" in answer.text
    assert "<script>nope" not in answer.text


async def test_an_image_that_is_not_there_is_said_on_the_waiting_page(gpuhub: Release) -> None:
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, "ines") as ines:
        begun = time.monotonic()
        await ines.hub_api("POST", "users/ines/server", json={"user_options": {"profile": "broken"}})
        events = []
        url = f"{gpuhub.url}hub/api/users/ines/server/progress"
        async with ines.http.get(url, headers=ines.headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data:"):
                    events.append(json.loads(line.removeprefix(b"data:")))
                    if events[-1].get("failed"):
                        break
        assert time.monotonic() - begun < 90
        failed = events[-1]
        assert "The chosen environment cannot be fetched." in failed["html_message"]
        assert "<details" in failed["html_message"]
        told = json.dumps(events[:-1])
        assert "raw_event" not in told
        assert "pod" not in told


async def test_a_server_starts_and_outlives_the_hub_and_is_missed_when_it_is_gone(gpuhub: Release) -> None:
    kubectl = gpuhub.cluster.kubectl
    async with await Person.enrol(gpuhub.url, gpuhub.admin_token, "hubert") as hubert:
        await hubert.start_server()
        lab = await hubert.http.get(f"{hubert.server_url}lab", headers=hubert.headers)
        assert lab.status == 200
        claim = kubectl.get("pvc", "claim-hubert", USERS)
        assert claim is not None
        assert claim["status"]["phase"] == "Bound"
        tab = await hubert.open("n.ipynb")
        assert (await tab.run(LOOK)).outputs[0]["data"]["text/plain"] == "('void', False)"

        await asyncio.to_thread(gpuhub.lose, "hub")
        assert (await hubert.hub_api("GET", "users/hubert"))["servers"][""]["ready"]
        assert (await tab.run("x + 1")).outputs[0]["data"]["text/plain"] == "42"

        await asyncio.to_thread(kubectl, "delete", "pod", POD, "-n", USERS, "--wait=false")

        async def missed() -> bool:
            return "" not in (await hubert.hub_api("GET", "users/hubert"))["servers"]

        await eventually(missed, "the hub to miss the server")

        await hubert.start_server()
        find = ("sh", "-c", "find /home/jovyan/.local/share/gpuhub/snapshots -name manifest.json")
        saved = await asyncio.to_thread(gpuhub.cluster.run_in, USERS, POD, *find)
        assert "manifest.json" in saved, "what ran was not saved before its end"
        await hubert.stop_server()
        assert kubectl.get("pod", POD, USERS) is None
        assert kubectl.get("pvc", "claim-hubert", USERS) is not None


async def errors(person: Person, gpuhub: Release) -> float:
    """How many starts the hub counts as errors of its own."""
    answer = await person.http.get(
        f"{gpuhub.url}hub/metrics", headers={"Authorization": f"token {gpuhub.admin_token}"}
    )
    lines = (await answer.text()).splitlines()
    name = "jupyterhub_server_spawn_duration_seconds_count{"
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and 'status="error"' in line
    )
