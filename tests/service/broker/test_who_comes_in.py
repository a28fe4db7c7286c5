"""Real tokens of a real hub: who gets in, as whom, and how soon a token that ended is refused."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from gpulease.errors import NotSignedIn, Unavailable
from gpulease.models import ErrorBody
from tests.person import Person
from tests.running import RunningHub
from tests.service.broker.conftest import Enrol
from tests.service.broker.tokens import PUBLIC_KEY, new_token, server_token
from tests.service.hub.browsing import signed_in

CACHE_SECONDS = 10


async def refused(person: Person, status: int, code: str, method: str, path: str, **kwargs: Any) -> ErrorBody:
    body = await person.broker(method, path, expect=status, **kwargs)
    assert body["code"] == code, body
    return ErrorBody.model_validate(body)


async def test_a_person_is_who_his_token_says(enrol: Enrol) -> None:
    ann = await enrol()
    me = await ann.broker("GET", "me")
    assert (me["user"], me["admin"], me["leases"]) == (ann.name, False, [])
    assert me["pools"][0]["simulated"]
    assert {quota["name"] for quota in me["quotas"]} >= {"gpus_at_once", "longest_lease_hours"}


@pytest.mark.parametrize("token", ["forged", "0" * 32, "x" * 4000])
async def test_a_forged_token_is_refused_at_once(enrol: Enrol, token: str) -> None:
    ann = await enrol()
    for method, path in (("GET", "me"), ("POST", "leases"), ("GET", "events")):
        await refused(ann, 401, NotSignedIn.code, method, path, token=token)


async def test_expired_and_revoked_tokens_are_refused_within_seconds(enrol: Enrol) -> None:
    ann = await enrol()
    short, revoked = await new_token(ann, expires_in=3), await new_token(ann)
    for token in (short, revoked):
        await ann.broker("GET", "me", token=token["token"])
    await ann.hub_api("DELETE", f"users/{ann.name}/tokens/{revoked['id']}")
    deadline = time.monotonic() + 3 + CACHE_SECONDS + 3
    left = {short["token"], revoked["token"]}
    while left:
        assert time.monotonic() < deadline, "a token that ended is still let in"
        for token in list(left):
            headers = {"Authorization": f"Bearer {token}"}
            async with ann.http.get(f"{ann.url}services/gpu/api/v1/me", headers=headers) as answer:
                assert answer.status in (200, 401)
                if answer.status == 401:
                    left.discard(token)
        await asyncio.sleep(0.5)


async def test_a_token_without_the_scope_is_refused(enrol: Enrol) -> None:
    ann = await enrol()
    token = (await new_token(ann, scopes=[f"read:users!user={ann.name}"]))["token"]
    error = await refused(ann, 403, "not-allowed", "GET", "me", token=token)
    assert "custom:gpuhub:manage:leases" in error.hint


async def test_somebody_elses_lease_does_not_exist(enrol: Enrol) -> None:
    ann, ben = await enrol(), await enrol()
    lease = (await ann.broker("POST", "leases", json={"gpus": 1}))["id"]
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"leases/{lease}", None),
        ("DELETE", f"leases/{lease}", None),
        ("POST", f"leases/{lease}/keep", None),
        ("PUT", f"leases/{lease}/key", {"public_key": PUBLIC_KEY}),
        ("POST", f"leases/{lease}/ack", {"kernels": [], "reason": "released"}),
        ("GET", f"leases/{lease}/usage", None),
    ]
    nothing = {"GET": (await refused(ben, 404, "not-found", "GET", "leases/none")).message}
    for method, path, body in asked:
        error = await refused(ben, 404, "not-found", method, path, json=body)
        assert error.message == nothing["GET"]
        assert ann.name not in error.model_dump_json()
    assert (await ben.broker("GET", "leases?ended=true"))["leases"] == []
    assert (await ann.broker("GET", f"leases/{lease}"))["state"] == "starting"


async def test_a_servers_token_acts_for_its_own_server_alone(enrol: Enrol) -> None:
    ann, ben = await enrol(), await enrol()
    token = await server_token(ann)
    lease = await ann.broker("POST", "leases", json={"gpus": 1, "server": ""}, token=token)
    assert (lease["user"], lease["server"]) == (ann.name, "")
    for body in ({"server": "second"}, {"gpus": 1, "server": ben.name}):
        await refused(ann, 403, "not-allowed", "POST", "leases", json=body, token=token)
    await refused(ann, 400, "bad-request", "POST", "leases", json={"user": ben.name}, token=token)
    other = await ann.broker("POST", "leases", json={"server": "second"})
    for method, path, body in (
        ("PUT", f"leases/{other['id']}/key", {"public_key": PUBLIC_KEY}),
        ("POST", f"leases/{other['id']}/ack", {"kernels": [], "reason": "server-stopped"}),
    ):
        answer = await ann.http.request(
            method,
            f"{ann.url}services/gpu/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status in (403, 404), (method, path, await answer.text())
    await refused(ben, 404, "not-found", "GET", f"leases/{lease['id']}", token=await server_token(ben))


async def test_an_operator_sees_everybodys_leases_and_ends_one(enrol: Enrol, hub: RunningHub) -> None:
    ann = await enrol()
    lease = (await ann.broker("POST", "leases", json={}))["id"]
    admin = hub.admin_token
    seen = await ann.broker("GET", "leases?everyone=true", token=admin)
    assert lease in [one["id"] for one in seen["leases"]]
    await ann.broker("DELETE", f"leases/{lease}", token=admin)
    assert (await ann.broker("GET", f"leases/{lease}"))["state"] in ("ending", "ended")
    assert (await refused(ann, 403, "not-allowed", "GET", "leases?everyone=true")).hint
    said = await refused(ann, 403, "not-allowed", "POST", "leases", json={}, token=admin)
    assert said.message == "A service has no GPU leases of its own."
    async with ann.http.get(
        f"{ann.url}services/gpu/metrics", headers={"Authorization": f"Bearer {admin}"}
    ) as answer:
        assert answer.status == 200
        assert "gpuhub_" in await answer.text()
    async with ann.http.get(f"{ann.url}services/gpu/metrics", headers=ann.headers) as answer:
        assert answer.status == 403


async def test_a_hub_that_does_not_answer_is_unavailable_and_known_tokens_go_on(
    enrol: Enrol, hub: RunningHub
) -> None:
    ann = await enrol()
    fresh = (await new_token(ann))["token"]
    await ann.broker("GET", "me")
    process = hub.child("hub")
    process.suspend()
    try:
        await ann.broker("GET", "me")
        error = await refused(ann, 503, Unavailable.code, "GET", "me", token=fresh)
        assert error.message == "The hub does not answer at the moment, so nobody can be let in."
    finally:
        process.resume()
    await ann.broker("GET", "me", token=fresh)


async def test_a_browser_signs_in_by_the_hub_and_releases_from_the_page(hub: RunningHub) -> None:
    async with await Person.enrol(hub.url, hub.admin_token, "paula") as person:
        await person.broker("POST", "leases", json={})
        with signed_in(hub, "paula") as paula:
            page = paula.get("services/gpu/").text
            form = re.search(r'action="/(services/gpu/leases/[^"]+/release)".*?value="([0-9a-f]+)"', page)
            assert form, page
            url, proof = form.groups()
            forged = paula.post(url, data={"proof": proof}, headers={"Origin": "https://evil.example"})
            assert forged.status_code == 403
            assert "This request did not come from the page itself." in forged.text
            assert await person.lease() is not None
            done = paula.post(url, data={"proof": proof}, headers={"Origin": hub.url.rstrip("/")})
            assert done.status_code == 200
            assert await person.lease() is None


def test_a_browsers_sign_in_ends_with_its_hubs(hub: RunningHub) -> None:
    with signed_in(hub, "paula") as paula:
        page = paula.get("services/gpu/")
        assert page.status_code == 200
        assert "Signed in as <strong>paula</strong>" in page.text
        assert "simulated GPU" in page.text
        assert paula.get("services/gpu/api/v1/me").json()["user"] == "paula"
        assert paula.post("services/gpu/api/v1/leases", json={}).status_code == 403
        forged = {"Origin": "https://evil.example"}
        assert paula.post("services/gpu/api/v1/leases", json={}, headers=forged).status_code == 403
        now = paula.get("hub/gpuhub/now").json()
        assert (now["ok"], now["allowed"], now["total"]) == (True, 2, 2)
        paula.get("hub/logout")
        time.sleep(CACHE_SECONDS + 1)
        assert paula.get("services/gpu/api/v1/me", follow_redirects=False).status_code == 401
