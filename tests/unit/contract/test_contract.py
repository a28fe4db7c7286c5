"""The contract's own promises: every state has a meaning, every error survives the journey."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from gpulease import errors
from gpulease.events import Decoder, encode
from gpulease.models import LeaseRequest, LinkKey
from gpulease.session import PlacementRequest, RestoreRequest
from gpulease.states import LeaseState, Observed, Wanted, shown_state


def all_error_classes(base: type[errors.GpuhubError] = errors.GpuhubError) -> list[type[errors.GpuhubError]]:
    return [base, *itertools.chain.from_iterable(all_error_classes(c) for c in base.__subclasses__())]


@pytest.mark.parametrize("wanted", list(Wanted))
@pytest.mark.parametrize("observed", list(Observed))
def test_every_pair_of_wanted_and_observed_is_shown_as_something(wanted: Wanted, observed: Observed) -> None:
    assert isinstance(shown_state(wanted, observed), LeaseState)


def test_what_is_gone_has_ended_whatever_was_wanted() -> None:
    assert {shown_state(wanted, Observed.GONE) for wanted in Wanted} == {LeaseState.ENDED}


@pytest.mark.parametrize("cls", all_error_classes())
def test_an_error_comes_out_on_the_far_side_as_the_same_class(cls: type[errors.GpuhubError]) -> None:
    sent = cls("It is so.", hint="Do this.", used=3, allowed=2)
    back = errors.from_dict(sent.as_dict(), status=cls.status)
    assert type(back) is cls
    assert (back.message, back.hint, back.details) == ("It is so.", "Do this.", {"used": 3, "allowed": 2})


def test_error_codes_are_unique() -> None:
    codes = [cls.code for cls in all_error_classes()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("body", [None, [], "text", {"message": 3}, {"code": "no-such", "message": 1}])
def test_a_foreign_answer_becomes_an_error_of_its_status(body: object) -> None:
    assert errors.from_dict(body, status=404).status == 404
    assert errors.from_dict(body, status=502).code == "unavailable"


def test_the_tree_in_the_docstring_names_every_class_with_its_status_and_code() -> None:
    for cls in all_error_classes()[1:]:
        line = next(line for line in (errors.__doc__ or "").splitlines() if f" {cls.__name__} " in line)
        assert str(cls.status) in line
        assert cls.code in line


def test_events_survive_the_wire_and_comments_are_not_events() -> None:
    decoder = Decoder()
    text = ": keep-alive\n\n" + encode("lease", '{"a": 1}', 7) + encode("usage", '{"b": 2}')
    seen = [event for line in text.split("\n") for event in decoder.feed(line)]
    assert seen == [("7", "lease", '{"a": 1}'), (None, "usage", '{"b": 2}')]


@pytest.mark.parametrize(
    "body",
    [
        {"gpu": 1},
        {"pool": "../etc"},
        {"pool": "UPPER"},
        {"server": "x" * 65},
        {"idempotency_key": "with space"},
        {"public_key": "ssh-rsa AAAA"},
    ],
)
def test_a_lease_request_refuses_what_it_does_not_know(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LeaseRequest.model_validate(body)


def test_a_public_key_is_one_line_of_ed25519() -> None:
    good = "ssh-ed25519 " + "A" * 68
    assert LinkKey(public_key=good).public_key == good
    with pytest.raises(ValidationError):
        LinkKey(public_key=good + "\nssh-ed25519 " + "B" * 68)


def test_placements_and_snapshot_names_are_closed_sets() -> None:
    with pytest.raises(ValidationError):
        PlacementRequest.model_validate({"placement": "moon"})
    with pytest.raises(ValidationError):
        RestoreRequest.model_validate({"snapshot": "../../secrets"})
