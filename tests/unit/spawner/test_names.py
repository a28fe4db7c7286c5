"""Names of servers: readable where they can be, always safe, never shared."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuspawner.names import MAX_UNIT_ID, server_unit_id

UNIT_ID = re.compile(r"^[a-z][a-z0-9-]*[a-z0-9]$")
people = st.text(min_size=1, max_size=64)
servers = st.text(max_size=30)


@pytest.mark.parametrize(
    ("user", "server", "expected"),
    [("ann", "", "s-ann"), ("ann", "gpu-1", "s-ann--gpu-1"), ("u07", "", "s-u07")],
)
def test_a_plain_name_stays_readable(user: str, server: str, expected: str) -> None:
    assert server_unit_id(user, server) == expected


def test_an_address_keeps_its_readable_part() -> None:
    assert re.fullmatch(r"s-ann-b-x-org---[0-9a-f]{8}", server_unit_id("Ann.B@x.org"))


@given(people, servers)
def test_every_name_is_short_and_safe(user: str, server: str) -> None:
    unit = server_unit_id(user, server)
    assert UNIT_ID.match(unit)
    assert len(unit) <= MAX_UNIT_ID


@given(people, servers, people, servers)
def test_two_servers_never_share_a_name(user: str, server: str, other: str, second: str) -> None:
    same = (user, server) == (other, second)
    assert (server_unit_id(user, server) == server_unit_id(other, second)) is same


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("a--b", ""), ("a", "b")),
        (("ann", ""), ("Ann", "")),
        (("a.b", ""), ("a-b", "")),
        (("a" * 60, ""), ("a" * 61, "")),
        (("é", ""), ("è", "")),
    ],
)
def test_lookalikes_are_told_apart(one: tuple[str, str], two: tuple[str, str]) -> None:
    assert server_unit_id(*one) != server_unit_id(*two)
