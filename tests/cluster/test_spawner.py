"""GpuKubeSpawner on a real cluster: what it makes, what it says when that cannot be, and how it ends.

The program in these pods is the probe's web server: what is tried here is the spawner and the cluster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuspawner.kube import GpuKubeSpawner
from gpuspawner.refusals import Refusal
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Refused
from tests.unit.spawner import kube
from tests.unit.spawner.kube import Person

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # A watch of KubeSpawner that is ended leaves its connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POD, CLAIM = "jupyter-ann", "claim-ann"
SERVES = ["sh", "-c", "trap 'sleep 2; echo saved > /home/jovyan/saved; exit 0' TERM; httpd -f -p 8888 & wait"]
SIZE = {"name": "small", "title": "Small", "cpus": 1, "cpus_guaranteed": 0.01, "memory": "64M"}
ENVIRONMENTS = [
    {"name": "base", "title": "Probe", "image": "localhost/probe:1"},
    {"name": "missing", "title": "Missing", "image": "localhost/not-there:1"},
    {"name": "misnamed", "title": "Misnamed", "image": "localhost/Not_A_Name::"},
]

Make = Callable[..., GpuKubeSpawner]


@pytest.fixture
async def make(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """Makes a spawner for the test's namespace, which is as strict as that of people's servers."""
    restrict(cluster, namespace)

    def made(traits: dict[str, Any] | None = None, **settings: Any) -> GpuKubeSpawner:
        known = {"namespace": namespace, "environments": ENVIRONMENTS, "sizes": [SIZE]} | settings
        known.setdefault("home", {"capacity": "1Gi"})
        given = kube.settings(tmp_path, **known)
        return kube.spawner(given, cmd=SERVES, start_timeout=120, **(traits or {}))

    async with kube.spawning(cluster.kubeconfig, monkeypatch):
        yield made


def restrict(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")


async def started(made: GpuKubeSpawner, options: dict[str, str] | None = None) -> str:
    await kube.chosen(made, options or {})
    url: str = await made.start()
    return url


async def refused(made: GpuKubeSpawner, options: dict[str, str] | None = None) -> tuple[Refusal, float]:
    """The refusal of a start, and after how many seconds it came. What is left is stopped, as by the hub."""
    begun = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        await started(made, options)
    seconds = time.monotonic() - begun
    if await made.poll() is None:
        await made.stop()
    print(f"{seconds:.1f} s: {refusal.value.message} | {refusal.value.details[:300]}")
    return refusal.value, seconds


async def becomes(look: Callable[[], Awaitable[Any]], wanted: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while (found := await look()) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.3)


async def test_a_server_starts_saves_at_its_stop_and_finds_its_home_again(
    cluster: Cluster, namespace: str, make: Make
) -> None:
    made = make()
    assert (await started(made)).endswith(":8888")
    pod, claim = cluster.kubectl.get("pod", POD, namespace), cluster.kubectl.get("pvc", CLAIM, namespace)
    assert pod is not None
    assert claim is not None
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 180
    found = await asyncio.to_thread(
        cluster.run_in,
        namespace,
        POD,
        *(
            "sh",
            "-c",
            "id -u; echo $NVIDIA_VISIBLE_DEVICES; ls /var/run/secrets 2>&1; "
            "touch /run/gpuhub/x /home/jovyan/x",
        ),
    )
    assert found.split()[:2] == ["1000", "void"]
    assert "kubernetes.io" not in found
    begun = time.monotonic()
    await made.stop()
    assert 2 <= time.monotonic() - begun < 30
    assert cluster.kubectl.get("pod", POD, namespace) is None
    await started(made)
    said = await asyncio.to_thread(cluster.run_in, namespace, POD, "cat", "/home/jovyan/saved")
    assert said.strip() == "saved"
    await made.stop()


async def test_the_steps_are_plain_words(make: Make) -> None:
    made = make()
    await started(made)
    told = [step["message"] for step in made._steps]
    print(told)
    assert told[0] == "Preparing your home folder."
    assert told[-1] == "Your server is up. Opening it."
    assert not [one for one in told if "pod" in one.lower() or "container" in one.lower()]
    await made.stop()


@pytest.mark.parametrize("name", ["missing", "misnamed"])
async def test_an_image_that_cannot_be_had_is_said_soon(make: Make, name: str) -> None:
    refusal, seconds = await refused(make(), {"profile": name})
    assert refusal.reason == "image"
    assert refusal.message.startswith("The chosen environment cannot be fetched.")
    assert seconds < 100


async def test_a_program_that_ends_is_said_with_its_last_words(make: Make) -> None:
    made = make({"port": 8889})
    made.cmd = ["sh", "-c", "echo no module named jupyterhub; exit 3"]
    refusal, seconds = await refused(made)
    assert refusal.reason == "exited"
    assert "exit code 3" in refusal.details
    assert "no module named jupyterhub" in refusal.details
    assert seconds < 60


async def test_a_quota_is_said_with_its_numbers(cluster: Cluster, namespace: str, make: Make) -> None:
    cluster.kubectl("create", "quota", "q", "-n", namespace, "--hard=limits.cpu=500m,limits.memory=1Gi")
    await becomes_counted(cluster, namespace)
    refusal, _ = await refused(make())
    assert refusal.reason == "quota"
    assert "CPUs 0 of 500m used, 1 asked for" in refusal.message


async def becomes_counted(cluster: Cluster, namespace: str) -> None:
    async def hard() -> bool:
        quota = cluster.kubectl.get("quota", "q", namespace)
        return bool(quota and (quota.get("status") or {}).get("hard"))

    await becomes(hard, True)


async def test_a_rule_of_the_cluster_is_said_as_one(make: Make) -> None:
    made = make()
    made.container_security_context = {"capabilities": {"drop": []}}  # the namespace wants ALL
    refusal, _ = await refused(made)
    assert refusal.reason == "rule"
    assert "PodSecurity" in refusal.details


async def test_no_room_is_waited_for_in_words(make: Make) -> None:
    made = make(sizes=[SIZE | {"cpus": 900, "cpus_guaranteed": 900}])
    made.start_timeout = 12
    refusal, seconds = await refused(made)
    assert refusal.message.startswith("There was no room for your server in time.")
    assert "Waiting for room: the machines are full at the moment." in [s["message"] for s in made._steps]
    assert seconds < 30


async def test_a_server_deleted_behind_the_hubs_back_is_missed(
    cluster: Cluster, namespace: str, make: Make
) -> None:
    made = make()
    await started(made)
    cluster.kubectl("delete", "pod", POD, "-n", namespace, "--wait=false")
    await becomes(made.poll, 1)
    await started(made)
    assert await made.poll() is None
    await made.stop()


async def test_a_hub_that_comes_again_finds_the_server(make: Make) -> None:
    first = make()
    await started(first)
    state = first.get_state()
    await GpuKubeSpawner._stop_all_reflectors()
    again = make()
    again.load_state(state)
    assert await again.poll() is None
    # Another start takes the place: the one that runs may save first.
    again.api_token = "of-another-start"
    await started(again)
    assert again._steps[0]["message"] == "Making room: your last server is saving its work."
    await again.stop()


async def test_nothing_is_concluded_while_the_api_is_away(cluster: Cluster, make: Make) -> None:
    made = make()
    await started(made)
    state = made.get_state()
    await GpuKubeSpawner._stop_all_reflectors()
    cluster.kill("kube-apiserver")
    try:
        again = make()
        again.load_state(state)
        assert await again.poll() is None
    finally:
        cluster.start("kube-apiserver")
    await becomes(again.poll, None)
    async with asyncio.timeout(60):
        while True:
            try:
                await again.stop()
                break
            except Exception as error:
                print("the API comes again:", error)
                await asyncio.sleep(1)
    await becomes(again.poll, 1)


@asynccontextmanager
async def own_namespace(cluster: Cluster, name: str) -> AsyncIterator[str]:
    try:
        yield name
    finally:
        await asyncio.to_thread(
            cluster.kubectl, "delete", "namespace", name, "--ignore-not-found", "--wait=false"
        )


async def test_a_namespace_per_person_is_made_as_strict_as_ours(cluster: Cluster, make: Make) -> None:
    async with own_namespace(cluster, "gpuhub-user-zoe") as name:
        made = make({"person": Person("zoe", url="/user/zoe/")}, namespace="", user_namespaces={})
        await started(made)
        labels = cluster.kubectl.get("namespace", name)
        assert labels is not None
        assert labels["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["metadata"]["labels"]["gpuhub.io/users"] == "true"
        with pytest.raises(Refused, match="violates PodSecurity"):
            cluster.kubectl("run", "bad", "-n", name, "--image=localhost/probe:1", "--privileged")
        assert await made.poll() is None
        await made.stop()
