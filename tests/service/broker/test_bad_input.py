"""What people, scripts and attackers send: refused with a sentence, nothing changed, never a server error."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gpulease.models import MAX_BODY_BYTES, ErrorBody
from tests.running import RunningHub
from tests.service.broker.conftest import Enrol, broker_address


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"pool": "quantum"}, 400, "unknown-pool", "quantum"),
        ({"gpus": 0}, 400, "invalid-option", "1"),
        ({"gpus": -1}, 400, "invalid-option", "1"),
        ({"gpus": 1000}, 400, "invalid-option", "1000"),
        ({"gpus": 2**70}, 400, "invalid-option", ""),
        ({"gpus": "two"}, 400, "invalid-option", "gpus"),
        ({"pool": "../../etc"}, 400, "invalid-option", "pool"),
        ({"server": "x" * 65}, 400, "invalid-option", "server"),
        ({"server": "../ben"}, 400, "invalid-option", "server"),
        ({"server": "a\0b"}, 400, "invalid-option", "server"),
        ({"server": "a\nb"}, 400, "invalid-option", "server"),
        ({"colour": "violet"}, 400, "bad-request", "colour"),
        ({"user": "root"}, 400, "bad-request", "user"),
        ({"public_key": "ssh-rsa AAAA"}, 400, "invalid-option", "public_key"),
        ([], 400, "bad-request", "JSON"),
        ("text", 400, "bad-request", "JSON"),
    ],
)
async def test_a_bad_request_is_refused_with_a_sentence(
    enrol: Enrol, body: Any, status: int, code: str, words: str
) -> None:
    ann = await enrol()
    async with ann.http.post(
        f"{ann.url}services/gpu/api/v1/leases", json=body, headers=ann.headers
    ) as answer:
        said = ErrorBody.model_validate(await answer.json())
        assert (answer.status, said.code) == (status, code), said
    assert words in said.message
    assert said.hint
    assert await ann.lease() is None


async def test_more_than_the_limit_says_what_is_used_and_allowed(enrol: Enrol) -> None:
    ann = await enrol()
    await ann.broker("POST", "leases", json={"gpus": 1})
    said = await ann.broker("POST", "leases", json={"gpus": 2, "server": "second"}, expect=403)
    assert said["code"] == "limit-reached"
    details = said["details"]
    assert (details["limit"], details["used"], details["allowed"]) == ("gpus_at_once", 1, 2)


async def test_an_oversized_body_is_refused_with_and_without_its_length(
    enrol: Enrol, hub: RunningHub
) -> None:
    ann = await enrol()
    where = urlsplit(hub.url)
    head = (
        f"POST /services/gpu/api/v1/leases HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {ann.token}\r\nContent-Type: application/json\r\n"
    )
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    whole = f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode() + b" " * (MAX_BODY_BYTES + 1)
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * (MAX_BODY_BYTES // 1024 + 1)
    for request in (whole, chunked + b"0\r\n\r\n"):
        assert exchange(where.hostname, where.port, request).startswith(b"HTTP/1.1 413 ")
    for request in (whole, chunked, chunked + b"0\r\n\r\n"):
        answer = exchange(*broker_address(hub), request)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"too-large"' in answer


@pytest.mark.parametrize(
    "target",
    [
        "/services/gpu/api/v1/leases/..%2f..%2f..%2fmetrics",
        "/services/gpu/api/v1/leases/%2e%2e/%2e%2e/metrics",
        "/services/gpu/api/v1/../../metrics",
        "/services/gpu//api/v1/me",
        "/services/gpu/api/v1/leases/%00",
        "/services/gpu/api/v1/leases/%ff%fe",
        "/services/gpu/api/v1/leases/" + "a" * 3000,
        "/services/gpu/api/v1/me%0d%0aX-Evil:%201",
        "/services/gpu/api/v1/leases?before='%20OR%201=1--",
        "/services/gpu/api/v1/leases?limit=-1",
        "/services/gpu/api/v1/leases?limit=1e3",
    ],
)
async def test_tricks_in_the_address_lead_nowhere(enrol: Enrol, hub: RunningHub, target: str) -> None:
    ann = await enrol()
    # To the broker itself: a proxy in between would mend or refuse some of them.
    host, port = broker_address(hub)
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {ann.token}\r\n"
        "Connection: close\r\n\r\n"
    )
    answer = exchange(host, port, request.encode())
    status = int(answer.split()[1])
    assert 400 <= status < 500 or b'"leases":[]' in answer, answer[:500]
    assert b"X-Evil" not in answer.partition(b"\r\n\r\n")[0]
    assert b"gpuhub_" not in answer


async def test_a_body_of_another_type_is_refused(enrol: Enrol) -> None:
    ann = await enrol()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        async with ann.http.post(
            f"{ann.url}services/gpu/api/v1/leases",
            data=b'{"gpus": 1}',
            headers={**ann.headers, "Content-Type": kind},
        ) as answer:
            assert answer.status == 400
            assert (await answer.json())["code"] == "bad-request"
    assert await ann.lease() is None


def test_anybody_may_ask_whether_it_lives(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.url}services/gpu/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    document = httpx.get(f"{hub.url}services/gpu/api/v1/openapi.json").json()
    assert "/services/gpu/api/v1/events" in document["paths"]


def exchange(host: str | None, port: int | None, request: bytes) -> bytes:
    """Send raw bytes; return what comes back until the other side closes, or a second of silence."""
    with socket.create_connection((host or "", port or 0), timeout=10) as line:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(request)
        answer = b""
        line.settimeout(5)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := line.recv(65536):
                answer += part
                line.settimeout(1)
        return answer
