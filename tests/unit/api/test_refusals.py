"""Everything that is refused has one form; nothing that was sent or went wrong inside is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from gpuhub.store import DATABASE_AWAY
from gpulease.errors import from_dict
from gpulease.models import MAX_BODY_BYTES, ErrorBody
from tests.unit.api.broker import PREFIX, GivesEverything, KnowsThree, bearer

API = f"{PREFIX}/api/v1"
ANN = bearer("ann")


def refused(response: httpx.Response, status: int, code: str) -> ErrorBody:
    assert response.status_code == status, response.text
    body = ErrorBody.model_validate_json(response.content)
    assert body.code == code, body
    assert body.message.endswith(".")
    assert from_dict(response.json(), status=status).code == code
    return body


@pytest.mark.parametrize("headers", [{}, bearer("forged"), {"Authorization": "Basic YW5uOg=="}, bearer("")])
async def test_without_a_good_token_nobody_gets_in(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for path in ("me", "pools", "leases", "leases/lease-0", "events"):
        response = await http.get(f"{API}/{path}", headers=headers)
        refused(response, 401, "not-signed-in")
        assert response.headers["www-authenticate"].startswith("Bearer")
    refused(await http.get(f"{PREFIX}/metrics", headers=headers), 401, "not-signed-in")


async def test_a_token_in_the_address_is_not_looked_at(http: httpx.AsyncClient) -> None:
    refused(await http.get(f"{API}/me?token=ann"), 401, "not-signed-in")


async def test_a_token_without_the_scope_is_not_allowed(http: httpx.AsyncClient) -> None:
    assert "scope" in refused(await http.get(f"{API}/me", headers=bearer("nothing")), 403, "not-allowed").hint


async def test_metrics_and_everybodys_leases_are_for_operators(http: httpx.AsyncClient) -> None:
    refused(await http.get(f"{PREFIX}/metrics", headers=ANN), 403, "not-allowed")
    refused(await http.get(f"{API}/leases?everyone=true", headers=ANN), 403, "not-allowed")
    refused(await http.get(f"{API}/events?everyone=true", headers=ANN), 403, "not-allowed")
    refused(await http.get(f"{API}/pools?user=ben", headers=ANN), 403, "not-allowed")
    assert (await http.get(f"{PREFIX}/metrics", headers=bearer("operator"))).text == "gpuhub_leases 0\n"


async def test_a_hub_that_is_away_is_said_so(http: httpx.AsyncClient, hub: KnowsThree) -> None:
    hub.away = True
    response = await http.get(f"{API}/me", headers=ANN)
    refused(response, 503, "unavailable")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad-request"),
        (b"{", "bad-request"),
        (b"[]", "bad-request"),
        (b"null", "bad-request"),
        (b"\xff\xfe", "bad-request"),
        (b'"text"', "bad-request"),
        (b'{"colour": "violet"}', "bad-request"),
        (b'{"user": "ben"}', "bad-request"),
        (b'{"gpus": "many"}', "invalid-option"),
        (b'{"gpus": 1.5}', "invalid-option"),
        (b'{"gpus": null}', "invalid-option"),
        (b'{"pool": "../etc"}', "invalid-option"),
        (b'{"pool": 7}', "invalid-option"),
        (b'{"server": "' + b"x" * 65 + b'"}', "invalid-option"),
        (b'{"public_key": "ssh-rsa AAAA"}', "invalid-option"),
        (b'{"idempotency_key": "two words"}', "invalid-option"),
        (b"[" * 30_000, "bad-request"),
        (b'{"gpus": ' + b"9" * 5000 + b"}", "bad-request"),
        (b'{"gpus": NaN}', "invalid-option"),
    ],
)
async def test_a_bad_body_is_refused_with_a_sentence(
    http: httpx.AsyncClient, broker: GivesEverything, body: bytes, code: str
) -> None:
    headers = {**ANN, "Content-Type": "application/json"}
    response = await http.post(f"{API}/leases", content=body, headers=headers)
    said = refused(response, 400, code)
    assert broker.held == {}
    assert "violet" not in said.model_dump_json()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_a_body_of_another_type_is_refused(
    http: httpx.AsyncClient, broker: GivesEverything, kind: str
) -> None:
    headers = {**ANN, "Content-Type": kind}
    refused(await http.post(f"{API}/leases", content=b'{"gpus": 1}', headers=headers), 400, "bad-request")
    assert broker.held == {}


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(
    http: httpx.AsyncClient, broker: GivesEverything
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    for content in (b" " * (MAX_BODY_BYTES + 1), parts()):
        refused(await http.post(f"{API}/leases", content=content, headers=ANN), 413, "too-large")
    whole = b'{"gpus": 1}'.ljust(MAX_BODY_BYTES)
    headers = {**ANN, "Content-Type": "application/json"}
    assert (await http.post(f"{API}/leases", content=whole, headers=headers)).status_code == 201


@pytest.mark.parametrize("path", ["/", "/services/gpu/api/v2/me", f"{API}/lease", f"{API}/me/", "/metrics"])
async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    refused(await http.get(path, headers=ANN), 404, "not-found")


@pytest.mark.parametrize("lease", ["%2e%2e%2fme", "a%2Fb", "x%00y", "x" * 65, "%C3%BC", "a b", "';--", "..;"])
async def test_what_cannot_be_a_lease_is_not_found(http: httpx.AsyncClient, lease: str) -> None:
    refused(await http.get(f"{API}/leases/{lease}", headers=ANN), 404, "not-found")


async def test_another_method_is_refused_and_the_right_ones_are_named(http: httpx.AsyncClient) -> None:
    response = await http.patch(f"{API}/me", headers=ANN)
    refused(response, 405, "bad-request")
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=many", "ended=perhaps", "before=" + "x" * 65]
)
async def test_a_bad_query_is_refused(http: httpx.AsyncClient, query: str) -> None:
    refused(await http.get(f"{API}/leases?{query}", headers=ANN), 400, "invalid-option")


@pytest.mark.parametrize("last", ["x", "-1", "1e9", "9" * 30, "१"])
async def test_a_last_event_id_that_is_no_number_is_refused(http: httpx.AsyncClient, last: str) -> None:
    headers = {**ANN, "Last-Event-ID": last.encode()}
    refused(await http.get(f"{API}/events", headers=headers), 400, "bad-request")


async def test_two_keys_for_one_request_are_refused(http: httpx.AsyncClient, broker: GivesEverything) -> None:
    body: dict[str, Any] = {"idempotency_key": "one"}
    headers = {**ANN, "Idempotency-Key": "two"}
    refused(await http.post(f"{API}/leases", json=body, headers=headers), 400, "bad-request")
    for headers in (ANN, {**ANN, "Idempotency-Key": "one"}):
        assert (await http.post(f"{API}/leases", json=body, headers=headers)).status_code == 201
    assert broker.keys == ["one", "one"]


async def test_a_mistake_inside_is_logged_and_never_shown(
    http: httpx.AsyncClient, broker: GivesEverything
) -> None:
    broker.trouble = RuntimeError("the secret of the broker")
    with structlog.testing.capture_logs() as logged:
        response = await http.get(f"{API}/me", headers=ANN)
    assert [(one["event"], one.get("path")) for one in logged] == [
        ("internal error", f"{API}/me"),
        ("request", f"{API}/me"),
    ]
    assert response.status_code == 500
    body = ErrorBody.model_validate_json(response.content)
    assert body.code == "internal"
    assert "secret" not in response.text


async def test_a_database_that_is_away_is_said_so(http: httpx.AsyncClient, broker: GivesEverything) -> None:
    broker.trouble = DATABASE_AWAY[0]("select secret", {}, OSError("no room"))
    said = refused(await http.get(f"{API}/me", headers=ANN), 503, "unavailable")
    assert "secret" not in said.model_dump_json()


async def test_anybody_may_ask_whether_it_lives_and_what_it_answers_to(http: httpx.AsyncClient) -> None:
    assert (await http.get(f"{PREFIX}/health")).json() == {"status": "ok"}
    document = (await http.get(f"{API}/openapi.json")).json()
    assert f"{API}/leases/{{lease_id}}" in document["paths"]
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert all(one["description"] for one in operations)


async def test_operators_see_the_pools_as_a_person_sees_them(
    http: httpx.AsyncClient, broker: GivesEverything
) -> None:
    headers = bearer("operator")
    body = (await http.get(f"{API}/pools?user=ben", headers=headers)).json()
    assert (body["pools"][0]["free"], body["gpus_at_once"]) == (2, 2)
    assert (broker.actors[-1].user, broker.actors[-1].may_admin) == ("ben", False)
    assert (await http.get(f"{API}/pools", headers=headers)).json()["gpus_at_once"] is None
    refused(await http.get(f"{API}/pools?user=nobody", headers=headers), 404, "not-found")
    refused(await http.get(f"{API}/pools?user=..%2Fgroups", headers=headers), 404, "not-found")
