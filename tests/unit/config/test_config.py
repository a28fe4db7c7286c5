"""What the settings become in JupyterHub: on a cluster, inside Zero to JupyterHub, with any sign-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jupyterhub.app import JupyterHub
from oauthenticator.generic import GenericOAuthenticator
from pydantic import ValidationError
from traitlets.config import Config

from gpuhub import config, culling
from gpuhub.config import people
from gpuhub.settings import CullerSettings, HubSettings
from gpuspawner.kube import GpuKubeSpawner
from tests.unit.config.test_settings import LOCAL, raw


def applied(**changed: Any) -> Any:
    c = Config()
    config.apply(c, HubSettings.model_validate(raw(**changed)))
    return c


def test_a_hub_on_a_cluster_listens_for_all_and_is_reached_by_name() -> None:
    c = applied(hub_connect_url="http://hub.gpuhub.svc:8081", public_url="https://hub.example.org/")
    assert c.JupyterHub.hub_bind_url == "http://0.0.0.0:8081"
    assert c.JupyterHub.hub_connect_url == "http://hub.gpuhub.svc:8081"
    assert c.JupyterHub.public_url == "https://hub.example.org/"
    assert c.ConfigurableHTTPProxy.api_url == "http://proxy-api:8001"
    assert c.ConfigurableHTTPProxy.should_start is False
    gpu = next(service for service in c.JupyterHub.services if service["name"] == "gpu")
    assert gpu["url"] == "http://broker:8090"
    assert c.GpuKubeSpawner.broker_url == "http://broker:8090/services/gpu"


OWN = {"hub": "gpuhub", "walls_file": "/etc/gpuhub/walls.yaml"}


def test_every_setting_of_the_spawner_is_one_that_it_has() -> None:
    c = applied(kubernetes=raw()["kubernetes"] | {"user_namespaces": OWN, "priority_class": "users"})
    unknown = [name for name in c.GpuKubeSpawner if name not in GpuKubeSpawner.class_trait_names(config=True)]
    assert unknown == []
    unknown = [name for name in c.JupyterHub if name not in JupyterHub.class_trait_names(config=True)]
    assert unknown == []


def test_a_machine_of_ones_own_keeps_its_spawner() -> None:
    c = applied(kubernetes=None, local=LOCAL, auth={"class": "pam"})
    assert c.JupyterHub.spawner_class == "gpuspawner.local.GpuLocalSpawner"
    assert c.JupyterHub.authenticator_class == "gpuhub.signin.LauncherAuthenticator"
    assert c.GpuLocalSpawner.homes_dir == "/d/homes"


@pytest.mark.parametrize("kind", ["no-such-one", "nowhere.Authenticator", "os", "os.path"])
def test_an_authenticator_that_is_not_there_is_named(kind: str) -> None:
    with pytest.raises(ValueError, match=f"there is no authenticator {kind}"):
        applied(auth={"class": kind})


def test_an_authenticators_own_settings_are_passed_through(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    c = applied(
        auth={
            "class": "generic-oauth",
            "settings": {"client_id": "hub", "manage_groups": True, "allowed_groups": ["lab"]},
            "settings_files": {"client_secret": str(tmp_path / "secret")},
        },
        auth_state_key="cd" * 32,
    )
    assert issubclass(c.JupyterHub.authenticator_class, GenericOAuthenticator)
    assert c.GenericOAuthenticator == {
        "client_id": "hub",
        "manage_groups": True,
        "allowed_groups": ["lab"],
        "client_secret": "s3cret",
    }
    assert c.Authenticator.enable_auth_state is True
    assert "allow_all" not in c.Authenticator


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("generic-oauth", "GenericOAuthenticator"),
        ("dummy", "DummyAuthenticator"),
        ("oauthenticator.github.GitHubOAuthenticator", "GitHubOAuthenticator"),
    ],
)
def test_an_authenticator_is_known_by_name_or_path(kind: str, name: str) -> None:
    assert people.class_name(kind) == name


def test_the_operators_own_file_has_the_last_word(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "data = {'name': 'data', 'persistentVolumeClaim': {'claimName': 'd'}}\n"
        "c.GpuKubeSpawner.volumes.update({'data': data})\n"
        "c.JupyterHub.log_level = 'DEBUG'\n"
    )
    c = applied(extra_config=str(own))
    assert c.JupyterHub.log_level == "DEBUG"
    assert set(c.GpuKubeSpawner.volumes) == {"home", "data"}


def test_the_culler_is_set_up_by_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    c = Config()
    culling.apply(
        c,
        CullerSettings(hub_api_url="http://hub:8081/hub/api", proxy_url="http://p/", after_seconds=60),
    )
    assert (c.IdleCuller.timeout, c.IdleCuller.cull_every) == (60, 300)
    assert c.IdleCuller.url == "http://hub:8081/hub/api"
    assert callable(c.IdleCuller.cull_arbiter_hook)


# --- Zero to JupyterHub


def z2jh(tmp_path: Path, **custom: Any) -> Any:
    for service in ("gpu", "culler", "gpuhub-operator"):
        (tmp_path / f"hub.services.{service}.apiToken").write_text(f"token-of-{service}")
    c = Config()
    c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
    c.JupyterHub.services = [{"name": "gpu", "api_token": "x"}, {"name": "other", "api_token": "y"}]
    c.JupyterHub.load_roles = [
        {"name": "user", "scopes": ["self", "shares!user"]},
        {"name": "other", "scopes": ["list:users"], "services": ["other"]},
    ]
    c.KubeSpawner.image_pull_secrets = ["pull"]
    given = {"broker_url": "http://broker:8090", "environments_file": "/e.yaml"} | custom
    config.z2jh(c, {"gpuhub": given}, secrets=tmp_path)
    return c


def test_inside_z2jh_its_own_settings_stay_and_ours_are_added(tmp_path: Path) -> None:
    c = z2jh(tmp_path)
    assert c.JupyterHub.spawner_class == "gpuspawner.kube.GpuKubeSpawner"
    services = {service["name"]: service for service in c.JupyterHub.services}
    assert services["other"] == {"name": "other", "api_token": "y"}
    assert services["gpu"]["api_token"] == "token-of-gpu"
    assert services["gpu"]["url"] == "http://broker:8090"
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    assert {"self", "shares!user", "custom:gpuhub:manage:leases!user"} <= set(roles["user"]["scopes"])
    assert roles["other"]["services"] == ["other"]
    assert c.KubeSpawner.image_pull_secrets == ["pull"]
    assert "volumes" not in c.GpuKubeSpawner


def test_inside_z2jh_a_mistake_ends_the_hub_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="brokr_url"):
        z2jh(tmp_path, brokr_url="x")
    with pytest.raises(ValueError, match=r"custom\.gpuhub is missing"):
        config.z2jh(Config(), {}, secrets=tmp_path)
    with pytest.raises(ValidationError, match="cannot be read"):
        config.z2jh(
            Config(), {"gpuhub": {"broker_url": "x", "environments_file": "/e"}}, secrets=tmp_path / "no"
        )
