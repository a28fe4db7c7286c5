"""GpuKubeSpawner's pods and choices, without a cluster that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kubespawner import KubeSpawner

from gpuspawner.kube import GpuKubeSpawner
from gpuspawner.refusals import Refusal
from tests.unit.spawner import kube
from tests.unit.spawner.kube import Person
from tests.unit.spawner.played import PlayedCluster

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # A watch of KubeSpawner that is ended leaves its connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def env(pod: dict[str, Any], container: int = 0) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][container]["env"]}


async def made(folder: Path, options: Any = None, **known: Any) -> dict[str, Any]:
    """The pod that would be sent."""
    person = known.pop("person", None)
    groups, server = known.pop("groups", ()), known.pop("server", "")
    spawner = kube.spawner(kube.settings(folder, **known), person=person, groups=groups, server=server)
    return await kube.manifest(await kube.chosen(spawner, options or {}))


async def test_a_server_has_no_gpu_no_token_and_no_rights(tmp_path: Path) -> None:
    pod = await made(tmp_path)
    spec, notebook = pod["spec"], pod["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["fsGroup"] == 1000
    assert notebook["securityContext"]["runAsUser"] == 1000
    assert notebook["securityContext"]["allowPrivilegeEscalation"] is False
    assert notebook["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert notebook["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert set(notebook["resources"]["limits"]) == {"cpu", "memory"}
    assert (env(pod)["NVIDIA_VISIBLE_DEVICES"], env(pod)["CUDA_VISIBLE_DEVICES"]) == ("void", "")


async def test_a_server_is_found_by_its_labels(tmp_path: Path) -> None:
    pod = await made(tmp_path, person=Person("Ann.B@x.org"), server="gpu-1")
    labels, annotations = pod["metadata"]["labels"], pod["metadata"]["annotations"]
    assert labels["component"] == "singleuser-server"
    assert labels["app.kubernetes.io/part-of"] == "gpuhub"
    assert labels["gpuhub.io/server"] == "ann-b-x-org---4395b84e--gpu-1"
    assert annotations["hub.jupyter.org/username"] == "Ann.B@x.org"
    assert annotations["hub.jupyter.org/servername"] == "gpu-1"


async def test_a_person_has_one_home_for_all_servers(tmp_path: Path) -> None:
    pods = [await made(tmp_path, server=name) for name in ("", "gpu-1")]
    claims = {pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] for pod in pods}
    assert claims == {"claim-ann"}
    assert {"name": "home", "mountPath": "/home/jovyan"} in pods[0]["spec"]["containers"][0]["volumeMounts"]


async def test_the_session_is_told_what_it_needs(tmp_path: Path) -> None:
    pod = await made(tmp_path, environment={"GPUHUB_SAVE_SECONDS": "1", "TEAM": "vision"})
    found = env(pod)
    assert found["GPUHUB_BROKER_URL"] == "http://broker.gpuhub.svc:8090/services/gpu"
    assert found["GPUHUB_SAVE_SECONDS"] == "180.0"
    assert found["JUPYTER_DEFAULT_PROVISIONER_NAME"] == "gpuhub-provisioner"
    assert found["GPUHUB_RUNTIME_DIR"] == "/run/gpuhub"
    assert found["JUPYTERHUB_API_URL"] == "http://hub.gpuhub.svc:8081/hub/api"
    assert found["JUPYTERHUB_ROOT_DIR"] == "/home/jovyan"
    assert found["TEAM"] == "vision"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 180
    run = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "run")
    assert run["emptyDir"] == {"medium": "Memory", "sizeLimit": str(64 * 2**20)}


async def test_what_was_chosen_is_what_is_started(tmp_path: Path) -> None:
    pod = await made(
        tmp_path,
        {"profile": "torch", "editor": "vscode"},
        groups=("vision",),
        node_selector={"zone": "a"},
        tolerations=[{"key": "lab", "operator": "Exists"}],
    )
    notebook = pod["spec"]["containers"][0]
    assert notebook["image"] == "localhost/gpuhub-torch:dev"
    assert notebook["resources"]["limits"] == {"cpu": 4.0, "memory": 16 * 2**30}
    assert env(pod)["JUPYTERHUB_DEFAULT_URL"] == "/vscode/"
    assert pod["spec"]["nodeSelector"] == {"zone": "a", "disk": "fast"}
    assert [one["key"] for one in pod["spec"]["tolerations"]] == ["lab", "torch"]


async def test_nothing_chosen_is_the_first_environment_in_its_first_size(tmp_path: Path) -> None:
    pod = await made(tmp_path)
    assert pod["spec"]["containers"][0]["image"] == "localhost/gpuhub-base:dev"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == 2 * 2**30


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "nope"}, "There is no environment 'nope'. On offer: base."),
        ({"profile": "torch"}, "There is no environment 'torch'. On offer: base."),
        ({"profile": "base", "size": "huge"}, "has no choice 'huge'. On offer: small, medium, large."),
        ({"profile": "base", "editor": "vscode"}, "has no choice 'vscode'. On offer: lab, notebook."),
        ({"image": "evil:1"}, "The environment base has no option 'image'."),
        ({"profile": "base", "size--unlisted-choice": "99"}, "takes no value of one's own"),
        ({"profile": {"a": 1}}, "must be a text"),
    ],
)
async def test_forged_options_are_a_clear_400(tmp_path: Path, options: Any, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        await made(tmp_path, options)
    assert sentence in refused.value.message
    assert refused.value.status_code == 400


async def test_the_page_shows_what_the_person_may_use(tmp_path: Path) -> None:
    for groups, expected in (((), ["base"]), (("vision",), ["base", "torch"])):
        spawner = kube.spawner(kube.settings(tmp_path), groups=groups)
        assert await spawner.get_options_form() == "gpuhub"
        cards = spawner.cards()
        assert [card["profile"].slug for card in cards] == expected
        assert [entry["option"].name for entry in cards[0]["options"]] == ["editor", "size"]
    assert cards[1]["versions"] == [("PyTorch", "2.9")]


async def test_the_form_says_what_the_api_would(tmp_path: Path) -> None:
    spawner = kube.spawner(kube.settings(tmp_path))
    form = {"profile": ["base"], "profile-option-base--size": ["large"], "_xsrf": ["x"]}
    assert await spawner.run_options_from_form(form) == {"profile": "base", "size": "large"}


async def test_a_changed_list_counts_at_once(tmp_path: Path) -> None:
    spawner = kube.spawner(kube.settings(tmp_path))
    assert [card["profile"].slug for card in spawner.cards()] == ["base"]
    entry = {"name": "new", "title": "New", "image": "new:1"}
    kube.settings(tmp_path, environments=[entry])
    assert [card["profile"].slug for card in spawner.cards()] == ["new"]


@pytest.mark.parametrize(
    "environments",
    [[], [{"name": "a", "title": "A"}], [{"name": "a"}], [{"name": "a", "title": "A", "editors": ["x"]}]],
)
async def test_a_broken_list_is_said_to_be_the_operators(tmp_path: Path, environments: Any) -> None:
    spawner = kube.spawner(kube.settings(tmp_path, environments=environments))
    with pytest.raises(Refusal) as refused:
        spawner.cards()
    assert refused.value.message == "The list of environments is broken. Tell your operator."
    assert refused.value.status_code == 503


def gpu_hook(spawner: Any, pod: Any) -> Any:
    pod.spec.containers[0].resources.limits["nvidia.com/gpu"] = 1
    return pod


async def async_hook(spawner: Any, pod: Any) -> Any:
    pod.spec.host_network = True
    return pod


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({"extra_resource_limits": {"nvidia.com/gpu": "1"}}, "nvidia.com/gpu"),
        ({"extra_container_config": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, "nvidia.com/gpu"),
        ({"privileged": True}, "privileged"),
        ({"uid": 0}, "root"),
        ({"automount_service_account_token": True}, "token"),
        ({"volumes": {"x": {"name": "x", "hostPath": {"path": "/"}}}}, "hostPath"),
        ({"extra_pod_config": {"hostPID": True}}, "hostPID"),
        ({"extra_annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all"}}, "cdi.k8s.io/x"),
        (
            {"extra_containers": [{"name": "s", "image": "s", "securityContext": {"privileged": True}}]},
            "container s",
        ),
        ({"modify_pod_hook": gpu_hook}, "nvidia.com/gpu"),
        ({"modify_pod_hook": async_hook}, "hostNetwork"),
    ],
)
async def test_no_setting_or_hook_breaks_the_promises(
    tmp_path: Path, traits: dict[str, Any], said: str
) -> None:
    spawner = kube.spawner(kube.settings(tmp_path), **traits)
    spawner._operators_hook = traits.get("modify_pod_hook")
    with pytest.raises(Refusal) as refused:
        await kube.manifest(await kube.chosen(spawner, {}))
    assert refused.value.message.startswith("The chosen environment would give this server rights")
    assert said in refused.value.details


async def test_an_environment_cannot_break_them_either(tmp_path: Path) -> None:
    profiles = [
        {"display_name": "Mine", "kubespawner_override": {"extra_resource_limits": {"nvidia.com/gpu": 1}}}
    ]
    spawner = kube.spawner(kube.settings(tmp_path), profile_list=profiles)
    with pytest.raises(Refusal) as refused:
        await kube.manifest(await kube.chosen(spawner, {}))
    assert refused.value.reason == "unsafe"


async def test_a_hook_that_is_harmless_has_its_way(tmp_path: Path) -> None:
    def hook(spawner: Any, pod: Any) -> Any:
        pod.metadata.labels["course"] = "ml"
        pod.spec.termination_grace_period_seconds = 1
        return pod

    spawner = kube.spawner(kube.settings(tmp_path))
    spawner._operators_hook = hook
    pod = await kube.manifest(await kube.chosen(spawner, {}))
    assert pod["metadata"]["labels"]["course"] == "ml"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 180


async def test_an_operators_own_profile_list_may_be_a_function(tmp_path: Path) -> None:
    async def profiles(spawner: Any) -> list[dict[str, Any]]:
        return [
            {
                "display_name": f"For {spawner.user.name}",
                "kubespawner_override": {"image": lambda s: f"{s.user.name}:1"},
            }
        ]

    spawner = kube.spawner(kube.settings(tmp_path), profile_list=profiles)
    await spawner.get_options_form()
    assert [card["profile"].title for card in spawner.cards()] == ["For ann"]
    pod = await kube.manifest(await kube.chosen(spawner, {}))
    assert pod["spec"]["containers"][0]["image"] == "ann:1"


async def test_a_profiles_groups_are_judged_for_an_operators_list_too(tmp_path: Path) -> None:
    profiles = [{"display_name": "A"}, {"display_name": "B", "groups": ["vision"]}]
    spawner = kube.spawner(kube.settings(tmp_path), profile_list=profiles)
    with pytest.raises(Refusal):
        await kube.chosen(spawner, {"profile": "b"})


def test_kubespawner_still_has_what_we_take_the_place_of() -> None:
    for name in (
        "_start_reflector",
        "_make_create_pod_request",
        "_start_watching_pods",
        "_get_reflector_key",
    ):
        assert callable(getattr(KubeSpawner, name)), name


async def test_what_is_ours_hides_nothing_of_theirs_by_accident(
    tmp_path: Path, cluster: PlayedCluster
) -> None:
    meant = {"get_env", "get_pod_manifest", "load_user_options", "start", "stop", "poll"}
    meant |= {"_start_reflector", "_make_create_pod_request", "_ensure_namespace"}
    ours = {n for n, v in vars(GpuKubeSpawner).items() if callable(v) or isinstance(v, property)}
    hidden = {name for name in ours if hasattr(KubeSpawner, name) and not name.startswith("__")}
    assert hidden == meant
