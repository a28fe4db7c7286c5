"""A browser signs in at the hub and gets a page; another site can do nothing with its cookie."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.unit.api.broker import PREFIX, GivesEverything, KnowsThree, bearer

API = f"{PREFIX}/api/v1"
OWN = {"Sec-Fetch-Site": "same-origin"}


async def begin(http: httpx.AsyncClient) -> str:
    """Open the page unsigned; returns the state that goes to the hub."""
    response = await http.get(f"{PREFIX}/")
    assert response.status_code == 302
    there = urlsplit(response.headers["location"])
    assert there.path == "/hub/api/oauth2/authorize"
    query = {name: values[0] for name, values in parse_qs(there.query).items()}
    assert query["client_id"] == "service-gpu"
    assert query["redirect_uri"] == f"{PREFIX}/oauth_callback"
    return query["state"]


async def sign_in(http: httpx.AsyncClient) -> str:
    """Sign ann in; returns the proof that her page carries."""
    state = await begin(http)
    response = await http.get(f"{PREFIX}/oauth_callback", params={"code": "ann-code", "state": state})
    assert (response.status_code, response.headers["location"]) == (302, f"{PREFIX}/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert f"Path={PREFIX}/" in cookie
    assert "ann;" not in cookie
    await http.post(f"{API}/leases", json={"gpus": 1}, headers=bearer("ann"))
    found = re.search(r'name="proof" value="([0-9a-f]+)"', (await http.get(f"{PREFIX}/")).text)
    assert found
    return found[1]


async def test_a_signed_in_person_sees_who_he_is_and_what_he_holds(http: httpx.AsyncClient) -> None:
    await sign_in(http)
    response = await http.get(f"{PREFIX}/")
    page = response.text
    assert "Signed in as <strong>ann</strong>" in page
    assert "simulated &lt;GPU&gt;" in page
    assert "2 of 2" in page
    assert "Release" in page
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert (await http.get(f"{API}/me")).json()["user"] == "ann"


async def test_an_answer_of_the_hub_counts_only_where_it_was_asked_for(
    http: httpx.AsyncClient, broker: GivesEverything
) -> None:
    state = await begin(http)
    for query in ({"code": "ann-code", "state": "other"}, {"code": "ann-code"}):
        assert (await http.get(f"{PREFIX}/oauth_callback", params=query)).status_code == 400
    http.cookies.clear()
    query = {"code": "ann-code", "state": state}
    assert (await http.get(f"{PREFIX}/oauth_callback", params=query)).status_code == 400
    assert (await http.get(f"{PREFIX}/")).status_code == 302
    assert broker.actors == []


async def test_a_refusal_of_the_hub_is_a_sentence(http: httpx.AsyncClient) -> None:
    state = await begin(http)
    query = {"error": "access_denied", "state": state}
    response = await http.get(f"{PREFIX}/oauth_callback", params=query)
    assert (response.status_code, "The hub did not let you in." in response.text) == (403, True)
    state = await begin(http)
    response = await http.get(f"{PREFIX}/oauth_callback", params={"code": "wrong", "state": state})
    assert (response.status_code, "did not confirm" in response.text) == (403, True)


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/hub/logout", "/services/gpu/../x", ""]
)
async def test_people_are_sent_on_to_our_own_pages_alone(http: httpx.AsyncClient, to: str) -> None:
    response = await http.get(f"{PREFIX}/login", params={"to": to})
    state = parse_qs(urlsplit(response.headers["location"]).query)["state"][0]
    response = await http.get(f"{PREFIX}/oauth_callback", params={"code": "ann-code", "state": state})
    assert response.headers["location"] == f"{PREFIX}/"


async def test_the_page_releases_a_lease(http: httpx.AsyncClient, broker: GivesEverything) -> None:
    proof = await sign_in(http)
    url = f"{PREFIX}/leases/lease-0/release"
    response = await http.post(url, data={"proof": proof}, headers=OWN)
    assert (response.status_code, response.headers["location"]) == (303, f"{PREFIX}/")
    assert broker.held["lease-0"].state == "ended"
    response = await http.post(f"{PREFIX}/leases/none/release", data={"proof": proof}, headers=OWN)
    assert response.status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://gpu.example.evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://gpu.example"},
        {},
    ],
)
async def test_another_site_cannot_release_even_with_the_proof(
    http: httpx.AsyncClient, broker: GivesEverything, headers: dict[str, str]
) -> None:
    proof = await sign_in(http)
    for response in (
        await http.post(f"{PREFIX}/leases/lease-0/release", data={"proof": proof}, headers=headers),
        await http.delete(f"{API}/leases/lease-0", headers={**headers, "X-XSRFToken": proof}),
        await http.post(f"{API}/leases", json={}, headers={**headers, "X-XSRFToken": proof}),
    ):
        assert response.status_code == 403
    assert list(broker.held) == ["lease-0"]
    assert broker.held["lease-0"].state == "active"


@pytest.mark.parametrize("proof", ["", "0" * 64, "ü"])
async def test_without_the_proof_our_own_origin_is_not_enough(
    http: httpx.AsyncClient, broker: GivesEverything, proof: str
) -> None:
    await sign_in(http)
    response = await http.post(f"{PREFIX}/leases/lease-0/release", data={"proof": proof}, headers=OWN)
    assert response.status_code == 403
    response = await http.delete(
        f"{API}/leases/lease-0", headers=[*OWN.items(), ("X-XSRFToken", proof.encode())]
    )
    assert response.status_code == 403
    assert broker.held["lease-0"].state == "active"


async def test_with_proof_and_origin_the_api_takes_the_cookie(
    http: httpx.AsyncClient, broker: GivesEverything
) -> None:
    proof = await sign_in(http)
    headers = {"Origin": "http://gpu.example", "X-XSRFToken": proof}
    assert (await http.delete(f"{API}/leases/lease-0", headers=headers)).status_code == 200
    assert broker.held["lease-0"].state == "ended"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Dest": "iframe"}])
async def test_a_fetch_or_a_frame_gets_no_proof(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    await sign_in(http)
    assert "proof" not in (await http.get(f"{PREFIX}/", headers=headers)).text


async def test_a_forged_cookie_is_nobody(http: httpx.AsyncClient) -> None:
    await sign_in(http)
    for value in ("ann", "gAAAAAB", ""):
        http.cookies.clear()
        http.cookies.set("gpuhub-session", value)
        assert (await http.get(f"{API}/me")).status_code == 401


async def test_a_cookie_is_sent_over_encrypted_lines_only_where_there_is_one(http: httpx.AsyncClient) -> None:
    response = await http.get(f"{PREFIX}/login", headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in response.headers["set-cookie"]


async def test_a_hub_that_is_away_is_said_on_the_page(http: httpx.AsyncClient, hub: KnowsThree) -> None:
    state = await begin(http)
    hub.away = True
    query = {"code": "ann-code", "state": state}
    response = await http.get(f"{PREFIX}/oauth_callback", params=query)
    assert (response.status_code, "does not answer" in response.text) == (503, True)
