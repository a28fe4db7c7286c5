"""Settings: secrets stay inside, mistakes are named, pools and groups override, each explains itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpuhub.broker.settings import (
    GroupPolicy,
    PolicySettings,
    PoolPolicy,
    describe_policy,
    load_policy,
)
from gpuhub.broker.site import BrokerSettings, load_settings

BROKER = {
    "port": 8100,
    "hub_api_url": "http://127.0.0.1:8081/hub/api",
    "hub_api_token": "secret-token",
    "database_url": "sqlite+aiosqlite:////data/gpuhub.sqlite",
    "local": {
        "launcher_socket": "/run/launcher.sock",
        "account_mode": "shared",
        "homes": "/data/homes",
        "prefix": "/usr",
    },
}


def policy_from(tmp_path: Path, text: str) -> PolicySettings:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return load_policy(file)


def test_the_token_is_shown_only_to_the_writer_of_the_file(tmp_path: Path) -> None:
    settings = BrokerSettings.model_validate(BROKER)
    assert "secret-token" not in settings.model_dump_json()
    assert "secret-token" not in repr(settings)
    file = tmp_path / "broker.json"
    file.write_text(json.dumps(settings.model_dump(mode="json", context={"reveal": True})))
    assert load_settings(file).hub_api_token.get_secret_value() == "secret-token"


def test_settings_that_cannot_be_used_name_each_mistake(tmp_path: Path) -> None:
    file = tmp_path / "broker.json"
    file.write_text(json.dumps({**BROKER, "port": "many", "colour": 1}))
    with pytest.raises(ValueError, match=r"port: .*; colour: there is no such setting"):
        load_settings(file)


def test_no_file_and_an_empty_file_mean_the_defaults(tmp_path: Path) -> None:
    assert load_policy(None) == policy_from(tmp_path, "") == PolicySettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idle_after_secs: 3", "idle_after_secs: there is no such setting"),
        ("idle_after_seconds: soon", "idle_after_seconds: input should be a valid integer"),
        ("idle_after_seconds: 0", "idle_after_seconds: input should be greater than or equal to 1"),
        ("- one\n- two", "it must be settings with values"),
        ("a: [", "it is not YAML"),
        ("groups: {lab: {priority: urgent}}", "groups.lab.priority: there is no priority 'urgent'"),
        ("priorities: {high: 1}", "'normal' is missing"),
        ("pools: {big: {gpus_at_once: 2}}", "pools.big.gpus_at_once: there is no such setting"),
    ],
)
def test_a_policy_that_cannot_be_used_says_where_and_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        policy_from(tmp_path, text)


def test_a_pool_overrides_the_rest(tmp_path: Path) -> None:
    policy = policy_from(tmp_path, "idle_after_seconds: 100\npools: {big: {idle_after_seconds: 900}}")
    assert policy.rules((), "big").idle_after_seconds == 900
    assert policy.rules((), "small").idle_after_seconds == 100


def test_a_group_overrides_the_pool_and_the_most_generous_group_counts(tmp_path: Path) -> None:
    policy = policy_from(
        tmp_path,
        "pools: {big: {longest_lease_hours: 2}}\n"
        "groups:\n"
        "  class: {longest_lease_hours: 4, gpus_at_once: 1}\n"
        "  lab: {longest_lease_hours: null, gpus_at_once: 3, priority: high}\n",
    )
    assert policy.rules(("class",), "big").longest_lease_hours == 4
    both = policy.rules(("class", "lab"), "big")
    assert (both.longest_lease_hours, both.gpus_at_once, both.priority, both.rank) == (None, 3, "high", 10)
    assert policy.rules(("unknown",), "big").longest_lease_hours == 2


def test_null_is_no_limit_only_where_there_is_such_a_thing(tmp_path: Path) -> None:
    policy = policy_from(
        tmp_path, "gpus_at_once: null\npools: {big: {warn_seconds: null, longest_lease_hours: null}}"
    )
    rules = policy.rules((), "big")
    assert (rules.gpus_at_once, rules.warn_seconds, rules.longest_lease_hours) == (None, 300, None)


def test_a_pool_may_be_for_groups_only(tmp_path: Path) -> None:
    policy = policy_from(tmp_path, "pools: {big: {groups: [lab]}, closed: {groups: []}}")
    assert policy.may_use(("lab",), "big")
    assert not policy.may_use(("class",), "big")
    assert not policy.may_use(("lab",), "closed")
    assert policy.may_use((), "other")


@pytest.mark.parametrize("model", [PolicySettings, PoolPolicy, GroupPolicy, BrokerSettings])
def test_every_setting_explains_itself(model: type) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_numbers_say_their_unit_and_what_changing_them_does() -> None:
    for name, _default, text in describe_policy():
        if name in ("priorities", "pools", "groups"):
            continue
        assert "aise it" in text or "higher" in text, name
        assert "ower" in text or "switches" in text or "null" in text or "bound" in text or "care" in text, (
            name
        )
        assert text.split()[0].rstrip(".") in (
            "Seconds",
            "Minutes",
            "Hours",
            "GPUs",
            "GPU-hours",
            "Leases",
            "How",
        )
