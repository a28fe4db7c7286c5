"""What helm makes of the chart: for every values file that we ship, and for wrong values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpuhub.broker.settings import load_policy
from gpuhub.broker.site import BrokerSettings
from gpuhub.settings import CullerSettings, HubSettings
from gpuspawner import images
from tests.charts.chart import CHART, ROOT, SITES, Render, RenderRefused, helm, site_options
from tests.cluster.build import program

SECRET = "0" * 64
SECRETS = "/etc/gpuhub/secrets"


@pytest.mark.parametrize("site", SITES)
def test_helm_finds_nothing_to_complain_about(site: str) -> None:
    done = helm("lint", str(CHART), "--strict", *site_options(site))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_made_from_something_else_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "helm-values/generate.py"), "--check"],
        env=os.environ | {"HELM": str(program("helm"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"Run python helm-values/generate.py\n{done.stdout}{done.stderr}"


# --- the schema


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hubb": {}}, "hubb"),
        ({"hub": {"databse": {}}}, "databse"),
        ({"broker": {"policy": {"idle_after_secs": 5}}}, "idle_after_secs"),
        ({"broker": {"policy": {"idle_after_seconds": 0}}}, "idle_after_seconds"),
        ({"broker": {"pools": [{"name": "a", "gpus": 4}]}}, "gpus"),
        ({"environments": [{"name": "base", "title": "Base", "imge": "x"}]}, "imge"),
        ({"environments": []}, "environments"),
        ({"users": {"home": {"accessMode": "ReadOnlyMany"}}}, "accessMode"),
        ({"proxy": {"service": {"type": "External"}}}, "type"),
        ({"networkPolicy": {"egress": [{"ports": [{"prot": "TCP"}]}]}}, "prot"),
        ({"admission": {"gpusPerPod": 0}}, "gpusPerPod"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(
    render: Render, values: dict[str, Any], word: str
) -> None:
    with pytest.raises(RenderRefused) as refused:
        render("defaults", **values)
    assert word in str(refused.value)


def schema_nodes(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    if isinstance(node, dict):
        found = [(path, node)]
        for key, value in node.items():
            found += schema_nodes(value, f"{path}/{key}")
    elif isinstance(node, list):
        for n, value in enumerate(node):
            found += schema_nodes(value, f"{path}/{n}")
    return found


def test_every_value_is_described_and_no_object_takes_unknown_keys() -> None:
    schema = yaml.safe_load((CHART / "values.schema.yaml").read_text())
    for path, node in schema_nodes(schema):
        if "properties" not in node or path.endswith("/properties"):
            continue
        assert node.get("additionalProperties") is False, path
        for name, value in node["properties"].items():
            said = value.get("description") or (
                "$ref" in value and schema["$defs"][value["$ref"].rpartition("/")[2]].get("description")
            )
            assert said, f"{path}: {name}"


def test_every_default_is_in_the_schema_and_every_key_of_the_schema_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(node: dict[str, Any], value: Any, path: str) -> None:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]] | node
        if not isinstance(value, dict) or "properties" not in node or path in free:
            return
        assert set(value) == set(node["properties"]), path
        for name, entry in value.items():
            compare(node["properties"][name], entry, f"{path}.{name}")

    # What is not said there has the default of gpuhub's own settings, or of Kubernetes.
    free = {".broker.policy", ".agent.affinity", ".prePuller.gpuAffinity"}
    compare(schema, values, "")


def test_everything_yaml_switches_every_option_on() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    everything = yaml.safe_load((ROOT / "helm-values/values/everything.yaml").read_text())

    def missing(default: Any, said: Any, path: str) -> list[str]:
        if not isinstance(default, dict) or not default:
            return []
        if not isinstance(said, dict):
            return [path]
        lost = [f"{path}.{name}" for name in default if name not in said]
        for name in default:
            lost += missing(default[name], said.get(name), f"{path}.{name}") if name in said else []
        return lost

    # Settings of the other kind of installation, and what Kubernetes means by leaving a key out.
    without = {".hub.enabled", ".secrets.keys"}
    assert set(missing(values, everything, "")) == without


# --- settings that cannot work together


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"hub": {"database": {"external": True}}}, "secrets.values.hub-database-url"),
        ({"agent": {"enabled": False}}, "no GPU would ever count as idle"),
        ({"broker": {"telemetry": {"source": "dcgm"}}}, "say where Prometheus is"),
        (
            {"hub": {"auth": {"class": "generic-oauth", "secretSettings": {"client_secret": "oauth"}}}},
            "names the key oauth",
        ),
        ({"users": {"namespace": {"name": "gpuhub"}}}, "the release's own namespace"),
        ({"hub": {"enabled": False}}, "name the Secret with the broker's token"),
    ],
)
def test_settings_that_cannot_work_together_are_one_sentence(
    render: Render, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RenderRefused) as refused:
        render("defaults", **values)
    assert sentence in str(refused.value)


# --- what hub, broker and culler read


def readable(text: str, folder: Path) -> str:
    """Settings whose secret files are there."""
    folder.mkdir(exist_ok=True)
    for word in text.split('"'):
        if word.startswith(f"{SECRETS}/"):
            (folder / word.removeprefix(f"{SECRETS}/")).write_text(SECRET)
    return text.replace(SECRETS, str(folder))


WITH_HUB = [site for site in SITES if site != "beside-z2jh"]


@pytest.mark.parametrize("site", WITH_HUB)
def test_hub_and_culler_accept_their_settings(render: Render, tmp_path: Path, site: str) -> None:
    made = render(site)
    hub = made.one("ConfigMap", "hub")["data"]["hub.json"]
    settings = HubSettings.model_validate_json(readable(hub, tmp_path / "secrets"))
    assert settings.kubernetes is not None
    assert settings.broker_token == SECRET
    told = made.one("ConfigMap", "culler")["data"]["culler.json"]
    culler = CullerSettings.model_validate_json(readable(told, tmp_path / "secrets"))
    assert culler.hub_api_url.endswith("/hub/api")


@pytest.mark.parametrize("site", SITES)
def test_the_broker_accepts_its_settings_and_policy(render: Render, tmp_path: Path, site: str) -> None:
    data = render(site).one("ConfigMap", "broker")["data"]
    settings = BrokerSettings.model_validate_json(readable(data["broker.json"], tmp_path / "secrets"))
    assert settings.kubernetes is not None
    policy = tmp_path / "policy.yaml"
    policy.write_text(data["policy.yaml"])
    load_policy(policy)


@pytest.mark.parametrize("site", SITES)
def test_the_spawner_accepts_the_environments(render: Render, tmp_path: Path, site: str) -> None:
    file = tmp_path / "environments.yaml"
    file.write_text(render(site).one("ConfigMap", "environments")["data"]["environments.yaml"])
    assert images.read(file)


def test_a_public_path_reaches_every_address(render: Render) -> None:
    made = render("everything")
    hub = json.loads(made.one("ConfigMap", "hub")["data"]["hub.json"])
    assert hub["bind_url"] == "http://0.0.0.0:8000/gpu/"
    broker = json.loads(made.one("ConfigMap", "broker")["data"]["broker.json"])
    assert broker["hub_api_url"] == "http://hub.gpuhub.svc:8081/gpu/hub/api"
    probes = {
        name: spec["containers"][0]["readinessProbe"]["httpGet"]["path"]
        for name, spec in made.pod_specs()
        if "readinessProbe" in spec["containers"][0]
    }
    assert probes == {
        "hub": "/gpu/hub/health",
        "broker": "/gpu/services/gpu/ready",
        "proxy": "/_chp_healthz",
    }
    assert made.of("Ingress")[0]["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/gpu/"
    url = next(word for word in made.one("Pod", "trial")["spec"]["containers"][0]["args"] if "--url" in word)
    assert url == "--url=http://proxy-public.gpuhub.svc:443/gpu/"


# --- walls inside the release


def secret_keys(spec: dict[str, Any]) -> dict[str, set[str]]:
    """By container: the keys of the Secret that it can read."""
    volumes = {
        volume["name"]: {
            item["key"]
            for source in volume.get("projected", {}).get("sources", [])
            for item in source.get("secret", {}).get("items", [])
        }
        for volume in spec["volumes"]
    }
    return {
        container["name"]: {key for mount in container["volumeMounts"] for key in volumes[mount["name"]]}
        | {
            entry["valueFrom"]["secretKeyRef"]["key"]
            for entry in container.get("env", [])
            if "secretKeyRef" in entry.get("valueFrom", {})
        }
        for container in spec["containers"]
    }


def test_each_container_reads_its_own_secrets_only(render: Render) -> None:
    specs = dict(render("defaults").pod_specs())
    assert secret_keys(specs["broker"]) == {"broker": {"broker-token"}}
    assert secret_keys(specs["proxy"]) == {"proxy": {"proxy-token"}}
    assert secret_keys(specs["agent"]) == {"agent": set()}
    assert secret_keys(specs["culler"]) == {"culler": {"culler-token"}}
    for _, spec in render("everything").pod_specs():
        for container in spec["containers"]:
            assert "envFrom" not in container


def test_a_change_of_settings_restarts_what_reads_them_and_nothing_else(render: Render) -> None:
    def marks(**values: Any) -> dict[str, Any]:
        made = render("defaults", **values)
        return {
            entry["metadata"]["name"]: entry["spec"]["template"]["metadata"].get("annotations")
            for entry in made.of("Deployment")
        }

    before = marks()
    policy = marks(broker={"policy": {"gpus_at_once": 2}})
    assert [name for name in before if before[name] != policy[name]] == ["broker"]
    admins = marks(hub={"admins": ["ann"]})
    assert [name for name in before if before[name] != admins[name]] == ["hub"]
    listed = marks(environments=[{"name": "one", "title": "One", "image": "one:1"}])
    assert listed == before, "the hub reads the list anew by itself"


def test_beside_zero_to_jupyterhub_there_is_no_second_hub(render: Render) -> None:
    made = render("beside-z2jh")
    assert {name for name, _ in made.pod_specs()} == {"broker", "culler", "agent"}
    assert made.of("Secret") == []
    assert {entry["metadata"]["name"] for entry in made.of("ServiceAccount")} == {"broker", "agent"}
    labels = made.one("Deployment", "broker")["spec"]["template"]["metadata"]["labels"]
    assert labels["hub.jupyter.org/network-access-hub"] == "true"
    sources = made.one("Deployment", "broker")["spec"]["template"]["spec"]["volumes"][0]["projected"]
    item = sources["sources"][1]["secret"]["items"][0]
    assert item == {"key": "hub.services.gpu.apiToken", "path": "secrets/broker-token"}
    policy = made.one("NetworkPolicy", "gpuhub-servers")
    hub = policy["spec"]["ingress"][0]["from"][1]["podSelector"]["matchLabels"]
    assert hub == {"app": "jupyterhub", "component": "hub"}
