"""Jupyter's wire format, against jupyter_client's own."""

from __future__ import annotations

import pytest
from jupyter_client.session import Session

from gpusession.kernels.wire import parse
from tests.unit.kernels.messages import KEY, wire


def jupyter() -> Session:
    return Session(key=KEY, signature_scheme="hmac-sha256")


def test_what_jupyter_signs_is_genuine_here() -> None:
    session = jupyter()
    frames = session.serialize(session.msg("execute_request", {"code": "ü"}), ident=[b"id"])
    found = parse(frames)
    assert found is not None
    assert wire().genuine(found)
    assert (found.type, found.idents, found.content()) == ("execute_request", [b"id"], {"code": "ü"})


def test_what_is_made_here_is_genuine_to_jupyter() -> None:
    ours = wire("relay")
    frames = ours.make("status", {"execution_state": "idle"}, idents=[b"status"], parent=b'{"msg_id": "p"}')
    session = jupyter()
    _, rest = session.feed_identities(frames)
    read = session.deserialize(rest)
    assert (read["msg_type"], read["parent_header"]["msg_id"]) == ("status", "p")
    assert read["content"] == {"execution_state": "idle"}


def test_a_changed_message_is_not_genuine() -> None:
    frames = wire().make("execute_request", {"code": "1"})
    frames[-1] = b'{"code": "2"}'
    found = parse(frames)
    assert found is not None
    assert not wire().genuine(found)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"x"],
        [b"<IDS|MSG>"],
        [b"<IDS|MSG>", b"", b"{}", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"[]", b"{}", b"{}", b"{}"],
        [b"<IDS|MSG>", b"", b"\xff", b"{}", b"{}", b"{}"],
    ],
)
def test_what_cannot_be_read_is_none(frames: list[bytes]) -> None:
    assert parse(frames) is None


def test_a_content_that_is_no_object_is_empty() -> None:
    found = parse([b"<IDS|MSG>", b"", b"{}", b"null", b"{}", b"[1]", b"buffer"])
    assert found is not None
    assert (found.content(), found.parent, found.id) == ({}, {}, "")
