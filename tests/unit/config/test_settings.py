"""The hub's settings: one place for servers, secrets from files, nothing half understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gpuhub.settings import CullerSettings, HubSettings


def raw(**changed: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bind_url": "http://0.0.0.0:8000/",
        "hub_bind_url": "http://0.0.0.0:8081",
        "database_url": "sqlite:////srv/gpuhub/jupyterhub.sqlite",
        "cookie_secret": "ab" * 32,
        "proxy_api_url": "http://proxy-api:8001",
        "proxy_token": "proxy-secret",
        "broker_url": "http://broker:8090",
        "broker_token": "broker-secret",
        "culler_token": "culler-secret",
        "admin_token": "admin-secret",
        "kubernetes": {"namespace": "gpuhub-users", "environments_file": "/etc/gpuhub/environments.yaml"},
    }
    return {key: value for key, value in (settings | changed).items() if value is not None}


LOCAL = {
    "data": "/d",
    "launcher_socket": "/s",
    "runtime": "/r",
    "account_mode": "shared",
    "own_prefix": "/usr",
}


def test_servers_run_in_exactly_one_place() -> None:
    assert HubSettings.model_validate(raw()).local is None
    assert HubSettings.model_validate(raw(kubernetes=None, local=LOCAL)).kubernetes is None
    for wrong in (raw(kubernetes=None), raw(local=LOCAL)):
        with pytest.raises(ValidationError, match="exactly one of local and kubernetes"):
            HubSettings.model_validate(wrong)


def test_every_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    secrets = ("database_url", "cookie_secret", "proxy_token", "broker_token", "culler_token", "admin_token")
    plain = raw()
    given = raw(**dict.fromkeys(secrets))
    for name in secrets:
        (tmp_path / name).write_text(f"{plain[name]}\n")
        given[f"{name}_file"] = str(tmp_path / name)
    (tmp_path / "password").write_text("for everybody\n")
    given["auth"] = {"class": "shared-password", "password_file": str(tmp_path / "password")}
    settings = HubSettings.model_validate_json(json.dumps(given))
    assert {name: getattr(settings, name) for name in secrets} == {name: plain[name] for name in secrets}
    assert settings.auth.password == "for everybody"


def test_a_secret_given_twice_missing_or_empty_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for given, said in (
        (raw(proxy_token_file="/x"), "proxy_token and proxy_token_file say the same"),
        (raw(proxy_token=None, proxy_token_file="/not/there"), "/not/there cannot be read"),
        (raw(proxy_token=None, proxy_token_file=str(tmp_path / "empty")), "is empty"),
        (raw(proxy_token=None), "proxy_token"),
    ):
        with pytest.raises(ValidationError, match=said):
            HubSettings.model_validate(given)


def test_only_secrets_come_from_files() -> None:
    with pytest.raises(ValidationError, match="bind_url_file"):
        HubSettings.model_validate(raw(bind_url_file="/x"))


def test_a_mistake_never_shows_a_secret() -> None:
    with pytest.raises(ValidationError) as refused:
        HubSettings.model_validate(raw(cookie_secret="not-hex-but-secret", start_seconds=1))
    assert "secret" not in str(refused.value).replace("cookie_secret", "")
    assert "broker-secret" not in repr(HubSettings.model_validate(raw()))


OWN = {"hub": "gpuhub", "walls_file": "/etc/gpuhub/walls.yaml"}


@pytest.mark.parametrize(
    ("kubernetes", "where"),
    [
        ({"namespaces": "x"}, "kubernetes.namespaces"),
        ({"home": {"access_mode": "ReadWriteSometimes"}}, "kubernetes.home.access_mode"),
        ({"uid": 0}, "kubernetes.uid"),
        ({"sizes": [{"name": "s", "title": "S", "cpus": 1, "memory": "2Gi"}]}, "kubernetes.sizes.0.memory"),
        ({"namespace": ""}, "say where servers go"),
        ({"user_namespaces": {}}, "user_namespaces.walls_file"),
        ({"user_namespaces": OWN | {"template": "everybody"}}, "user_namespaces.template"),
        ({"user_namespaces": OWN | {"template": "{username}"}}, "user_namespaces.template"),
        (
            {"user_namespaces": OWN | {"template": "much-too-long-for-it-{username}"}},
            "user_namespaces.template",
        ),
        ({"user_namespaces": OWN | {"pod_security": "privileged"}}, "user_namespaces.pod_security"),
    ],
)
def test_a_mistake_is_said_with_its_place(kubernetes: dict[str, Any], where: str) -> None:
    given = raw()
    given["kubernetes"] |= kubernetes
    with pytest.raises(ValidationError, match=where):
        HubSettings.model_validate(given)


def test_the_culler_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    settings = CullerSettings.model_validate(
        {
            "hub_api_url": "http://hub:8081/hub/api",
            "proxy_url": "http://p/",
            "api_token_file": str(tmp_path / "token"),
        }
    )
    assert settings.api_token == "t"
