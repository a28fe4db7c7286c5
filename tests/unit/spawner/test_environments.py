"""The list of environments: written in one step, refused with its reason when broken, shown by group."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gpuspawner import choices, environments
from gpuspawner.environments import BadEnvironments, Environment
from gpuspawner.profiles import check_profiles


def offer(file: Path, groups: set[str] | None = None, *, vscode: bool = False) -> list[str]:
    raw = choices.profile_list(file, Path(sys.prefix), groups or set(), vscode=vscode)
    return [profile.slug for profile in check_profiles(raw)]


def test_without_a_file_the_prefix_of_gpuhub_itself_is_on_offer(tmp_path: Path) -> None:
    assert offer(tmp_path / "none.yaml") == ["base"]


def test_what_was_written_is_on_offer_after_the_first(tmp_path: Path) -> None:
    file = tmp_path / "environments.yaml"
    environments.write(file, [Environment(name="torch", title="PyTorch", prefix=Path("/opt/torch"))])
    assert offer(file) == ["base", "torch"]


def test_an_environment_of_a_group_is_shown_to_its_members_only(tmp_path: Path) -> None:
    file = tmp_path / "environments.yaml"
    environments.write(
        file, [Environment(name="torch", title="PyTorch", prefix=Path("/opt/torch"), groups=("vision",))]
    )
    assert offer(file) == ["base"]
    assert offer(file, {"vision", "x"}) == ["base", "torch"]


def test_vs_code_is_offered_only_where_it_is_installed(tmp_path: Path) -> None:
    def editors(*, vscode: bool) -> list[str]:
        raw = choices.profile_list(tmp_path / "none", Path(sys.prefix), set(), vscode=vscode)
        option = check_profiles(raw)[0].option("editor")
        assert option is not None
        return [choice.key for choice in option.choices]

    assert editors(vscode=False) == ["lab", "notebook"]
    assert editors(vscode=True) == ["lab", "vscode", "notebook"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("environments: [{name: a}]", "title"),
        ("environments: [{name: A b, title: x, prefix: /x}]", "name"),
        ("environments: [{name: a, title: x, prefix: /x, colour: red}]", "colour"),
        ("environments: [{name: a, title: x, prefix: /x}, {name: a, title: y, prefix: /y}]", "stands twice"),
        ("][", "cannot be read"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "environments.yaml"
    file.write_text(text)
    with pytest.raises(BadEnvironments) as refused:
        environments.read(file)
    assert why in str(refused.value)


def test_a_card_shows_the_versions_that_are_really_there() -> None:
    shown = dict(environments.versions(Path(sys.prefix)))
    import pandas

    assert shown["Python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert shown["pandas"] == pandas.__version__


def test_the_last_choice_is_selected_and_marked(tmp_path: Path) -> None:
    file = tmp_path / "environments.yaml"
    environments.write(file, [Environment(name="torch", title="PyTorch", prefix=Path("/opt/torch"))])
    profiles = check_profiles(choices.profile_list(file, Path(sys.prefix), set(), vscode=False))
    shown = choices.cards(profiles, {"profile": "torch", "editor": "notebook"})
    assert [(card["profile"].slug, card["selected"], card["last_used"]) for card in shown] == [
        ("base", False, False),
        ("torch", True, True),
    ]
    assert shown[1]["options"][0]["chosen"] == "notebook"
    gone = choices.cards(profiles, {"profile": "removed", "editor": 3})
    assert gone[0]["selected"]
    assert not gone[0]["last_used"]
