"""What may be chosen, judged alike for page and API: a clear sentence, never a surprise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuspawner.profiles import BadProfiles, NotOnOffer, check_profiles, choose, from_form

PROFILES: list[dict[str, Any]] = [
    {
        "slug": "base",
        "display_name": "Data science",
        "kubespawner_override": {"prefix": "/opt/base", "mem": 1},
        "profile_options": {
            "editor": {
                "display_name": "Open with",
                "choices": {
                    "lab": {"display_name": "JupyterLab", "kubespawner_override": {"default_url": "/lab"}},
                    "vscode": {
                        "display_name": "VS Code",
                        "default": True,
                        "kubespawner_override": {"default_url": "/vscode/", "mem": 2},
                    },
                },
            },
            "image": {
                "choices": {"one": {"display_name": "One"}},
                "unlisted_choice": {
                    "enabled": True,
                    "validation_regex": r"[a-z:]+",
                    "validation_message": "An image is lower case letters.",
                    "kubespawner_override": {"image": "{value}", "args": ["--image", "{value}"]},
                },
            },
        },
    },
    {"display_name": "PyTorch 2", "default": True, "override": {"prefix": "/opt/torch"}},
]
OFFER = check_profiles(PROFILES)


def test_nothing_chosen_takes_the_default_profile() -> None:
    choice = choose(OFFER, {})
    assert (choice.profile.slug, choice.override) == ("pytorch-2", {"prefix": "/opt/torch"})


def test_an_option_that_was_not_named_takes_its_default() -> None:
    choice = choose(OFFER, {"profile": "base"})
    assert choice.picked["editor"] is not None
    assert choice.picked["editor"].key == "vscode"
    assert choice.override["default_url"] == "/vscode/"


def test_a_choice_overrides_its_profile() -> None:
    assert choose(OFFER, {"profile": "base", "editor": "vscode"}).override["mem"] == 2
    assert choose(OFFER, {"profile": "base", "editor": "lab"}).override["mem"] == 1


def test_a_free_value_is_put_in_as_it_stands() -> None:
    choice = choose(OFFER, {"profile": "base", "image--unlisted-choice": "a:b"})
    assert choice.override["image"] == "a:b"
    assert choice.override["args"] == ["--image", "a:b"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "nope"}, "There is no environment 'nope'. On offer: base, pytorch-2."),
        ({"profile": "base", "editor": "emacs"}, "has no choice 'emacs'. On offer: lab, vscode."),
        ({"profile": "base", "prefix": "/tmp"}, "has no option 'prefix'. On offer: editor, image."),
        ({"editor": "lab"}, "The environment pytorch-2 has no option 'editor'. It has none."),
        ({"profile": ["base"]}, "The option 'profile' must be a text."),
        ({"profile": None}, "The option 'profile' must be a text."),
        ({1: "base"}, "The option 1 must be a text."),
        ("base", "must be an object"),
        (["base"], "must be an object"),
        ({"profile": "x" * 2000}, "too long"),
        ({"profile": "base\n"}, "control characters"),
        ({"profile": "base", "editor--unlisted-choice": "x"}, "takes no value of one's own"),
        ({"profile": "base", "image--unlisted-choice": "A"}, "An image is lower case letters."),
        ({"profile": "base", "image--unlisted-choice": "a", "image": "one"}, "was given twice"),
    ],
)
def test_what_is_not_on_offer_is_refused_with_a_sentence(options: Any, sentence: str) -> None:
    with pytest.raises(NotOnOffer) as refused:
        choose(OFFER, options)
    assert sentence in str(refused.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["profile", "editor"]), inner)
    ),
)


@given(anything)
def test_whatever_is_sent_is_judged_and_never_breaks(options: Any) -> None:
    try:
        choice = choose(OFFER, options)
    except NotOnOffer:
        return
    assert choice.profile in OFFER


def test_the_form_says_what_the_api_would() -> None:
    form = {
        "profile": ["base"],
        "profile-option-base--editor": ["lab"],
        "profile-option-base--image": ["one"],
        "profile-option-base--image--unlisted-choice": [""],
        "profile-option-pytorch-2--editor": ["vscode"],
        "_xsrf": ["…"],
    }
    options = from_form(OFFER, form)
    assert options == {"profile": "base", "editor": "lab", "image": "one"}
    assert choose(OFFER, options) == choose(OFFER, {"profile": "base", "editor": "lab", "image": "one"})


def test_a_free_value_that_was_typed_counts_over_the_list() -> None:
    form = {
        "profile": ["base"],
        "profile-option-base--image": ["one"],
        "profile-option-base--image--unlisted-choice": ["a"],
    }
    assert from_form(OFFER, form) == {"profile": "base", "image--unlisted-choice": "a"}


def test_an_unknown_profile_of_a_forged_form_reaches_the_judge() -> None:
    with pytest.raises(NotOnOffer):
        choose(OFFER, from_form(OFFER, {"profile": ["../../etc"]}))


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ([], "empty"),
        ("x", "must be a list"),
        ([1], "profile 1"),
        ([{"slug": "a"}], "display_name"),
        ([{"display_name": "A"}, {"display_name": "a"}], "the slug a stands twice"),
        ([{"slug": "a/b", "display_name": "A"}], "slug"),
        ([{"display_name": "A", "profile_options": {"e": {}}}], "nothing to choose"),
        ([{"display_name": "A", "profile_options": {"profile": {"choices": {"x": {}}}}}], "cannot be called"),
        ([{"display_name": "A", "override": {}, "kubespawner_override": {}}], "say the same"),
        (
            [
                {
                    "display_name": "A",
                    "profile_options": {"e": {"unlisted_choice": {"enabled": True, "validation_regex": "("}}},
                }
            ],
            "not a regular expression",
        ),
    ],
)
def test_a_broken_list_is_refused_with_its_place(broken: Any, where: str) -> None:
    with pytest.raises(BadProfiles) as refused:
        check_profiles(broken)
    assert where in str(refused.value)


def test_the_dict_form_is_ordered_by_its_keys_as_in_kubespawner() -> None:
    listed = check_profiles({"b": {"display_name": "First"}, "a": {"display_name": "Second"}})
    assert [profile.slug for profile in listed] == ["second", "first"]
