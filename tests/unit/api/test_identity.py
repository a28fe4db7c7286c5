"""Who a token belongs to and what it may do, from the hub's answer alone."""

from __future__ import annotations

from typing import Any

import pytest

from gpuhub.api.identity import Identity, read_identity
from gpulease.scopes import ADMIN_LEASES, MANAGE_LEASES

PERSON = ["access:servers!user=ann", "access:services!service=gpu", f"{MANAGE_LEASES}!user=ann"]
SERVER = ["users:activity!user=ann", f"{MANAGE_LEASES}!user=ann"]


def who(scopes: list[str], **more: Any) -> Identity:
    return read_identity({"kind": "user", "name": "ann", "groups": ["lab"], "scopes": scopes, **more})


def test_a_persons_token_manages_his_leases_on_every_server() -> None:
    ann = who(PERSON)
    assert (ann.user, ann.groups, ann.server, ann.may_manage, ann.may_admin) == (
        "ann",
        ("lab",),
        None,
        True,
        False,
    )


@pytest.mark.parametrize("name", ["", "second"])
def test_a_servers_token_acts_for_that_server(name: str) -> None:
    server = who([*SERVER, f"access:servers!server=ann/{name}"])
    assert (server.server, server.may_manage) == (name, True)


def test_an_administrators_server_is_no_administrator() -> None:
    server = who([*SERVER, "access:servers!server=ann/", ADMIN_LEASES], admin=True)
    assert not server.may_admin


def test_a_token_without_the_scope_may_not_use_leases() -> None:
    assert not who(["access:servers!user=ann"]).may_manage


@pytest.mark.parametrize("filter_", ["!user=ben", "!server=ann/", "!group=lab", "!user=ann2"])
def test_a_filter_that_does_not_name_the_person_gives_no_right(filter_: str) -> None:
    assert not who([MANAGE_LEASES + filter_]).may_manage


def test_a_filtered_operators_scope_gives_no_operators_right() -> None:
    assert not who([f"{ADMIN_LEASES}!user=ann", *PERSON]).may_admin


def test_a_service_has_no_leases_of_a_person_with_its_name() -> None:
    service = who([ADMIN_LEASES, MANAGE_LEASES], kind="service")
    assert (service.may_manage, service.may_admin) == (False, True)


@pytest.mark.parametrize("raw", [None, [], {}, {"name": ""}, {"name": "ann", "scopes": "all"}, "ann"])
def test_an_answer_that_makes_no_sense_is_nobody(raw: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        read_identity(raw)
