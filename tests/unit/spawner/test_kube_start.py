"""Starts, stops and looks of GpuKubeSpawner against a played cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from kubespawner.spawner import PodReflector

from gpuspawner import starting, watching
from gpuspawner.kube import GpuKubeSpawner
from gpuspawner.refusals import Refusal
from tests.unit.spawner import kube, played
from tests.unit.spawner.kube import started
from tests.unit.spawner.played import PlayedCluster

REF = "gpuhub-users/jupyter-ann"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # A watch of KubeSpawner that is ended leaves its connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
async def ann(cluster: PlayedCluster, tmp_path: Path, port: int) -> GpuKubeSpawner:
    return kube.spawner(kube.settings(tmp_path), port=port)


async def refused(made: GpuKubeSpawner, options: Any = None) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await started(made, options)
    return refusal.value


async def gone(made: GpuKubeSpawner) -> bool:
    """Whether the hub learns within some seconds that the server is gone."""
    for _ in range(50):
        if await made.poll() == 1:
            return True
        await asyncio.sleep(0.1)
    return False


def steps(made: GpuKubeSpawner) -> list[str]:
    return [step["message"] for step in made._steps]


async def test_a_start_makes_a_claim_and_a_pod_and_waits_for_an_answer(
    cluster: PlayedCluster, ann: GpuKubeSpawner, port: int
) -> None:
    assert await started(ann) == f"http://127.0.0.1:{port}"
    assert list(cluster.objects["persistentvolumeclaims"]) == ["gpuhub-users/claim-ann"]
    pod = cluster.pods[REF]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "claim-ann"
    assert await ann.poll() is None
    assert steps(ann)[0] == "Preparing your home folder."
    assert steps(ann)[-1] == "Your server is up. Opening it."


async def test_steps_are_told_in_plain_words(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    await started(ann)
    told = json.dumps(ann._steps)
    for word in ("pod", "Pulled", "Scheduled", "kube", "raw_event", "container"):
        assert word not in told
    shares = [step["progress"] for step in ann._steps]
    assert shares == sorted(shares)


async def test_an_image_that_is_not_there_ends_the_start_at_once(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    cluster.behaviour = played.waits_for("ErrImagePull", "docker.io/x:1: not found")
    refusal = await refused(ann)
    assert refusal.message == f"The chosen environment cannot be fetched. {starting.OTHER_ENVIRONMENT}"
    assert "not found" in refusal.details
    assert refusal.reason == "image"


async def test_a_server_that_ends_says_why(cluster: PlayedCluster, ann: GpuKubeSpawner, port: int) -> None:
    ann.port = played.free_port()  # nobody listens: it ended before
    cluster.behaviour = played.ends(1, "ModuleNotFoundError: No module named 'jupyterhub'")
    refusal = await refused(ann)
    assert refusal.reason == "exited"
    assert "ModuleNotFoundError" in refusal.details


async def test_a_full_home_is_called_so(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    ann.port = played.free_port()
    cluster.behaviour = played.ends(1, "OSError: [Errno 28] No space left on device: '/home/jovyan/.local'")
    assert (await refused(ann)).message.startswith("Your home folder is full.")


async def test_a_quota_is_told_with_its_numbers(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    text = "exceeded quota: q, requested: limits.cpu=2, used: limits.cpu=3, limited: limits.cpu=4"
    cluster.refusals["POST", "pods"] = (403, text)
    refusal = await refused(ann)
    assert "CPUs 3 of 4 used, 2 asked for" in refusal.message
    assert refusal.reason == "quota"
    assert text in refusal.details


async def test_a_quota_for_homes_is_told_too(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    cluster.refusals["POST", "persistentvolumeclaims"] = (
        403,
        "exceeded quota: q, requested: requests.storage=10Gi, used: requests.storage=95Gi, "
        "limited: requests.storage=100Gi",
    )
    assert "storage 95Gi of 100Gi used, 10Gi asked for" in (await refused(ann)).message


async def test_a_rule_of_the_cluster_is_told_as_a_rule(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    cluster.refusals["POST", "pods"] = (
        403,
        "ValidatingAdmissionPolicy 'images' with binding 'b' denied request: images must come from here",
    )
    refusal = await refused(ann)
    assert refusal.message.startswith("A rule of the cluster does not allow this server.")
    assert "images must come from here" in refusal.details


async def test_a_refused_pod_does_not_put_its_token_into_the_log(
    cluster: PlayedCluster, ann: GpuKubeSpawner, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.refusals["POST", "pods"] = (403, "no")
    await refused(ann)
    assert "the-token-of-this-start" not in caplog.text


async def test_no_room_is_waited_for_and_told_when_the_time_is_over(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    ann.start_timeout = 5
    cluster.behaviour = played.finds_no_room()
    refusal = await refused(ann)
    assert refusal.reason == "timeout"
    assert refusal.message.startswith("There was no room for your server in time.")
    assert "Waiting for room: the machines are full at the moment." in steps(ann)


async def test_a_server_deleted_while_it_starts_ends_the_start(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    cluster.behaviour = played.never_moves
    start = asyncio.ensure_future(started(ann))
    for _ in range(100):
        if REF in cluster.pods:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    cluster.remove("pods", REF)
    with pytest.raises(Refusal) as refusal:
        await start
    assert refusal.value.reason == "ended"


async def test_what_is_left_of_an_earlier_server_may_save_first(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    cluster.put(
        "pods",
        {
            "metadata": {
                "namespace": "gpuhub-users",
                "name": "jupyter-ann",
                "uid": "old",
                "labels": {"component": "singleuser-server"},
            },
            "spec": {"containers": []},
            "status": {"phase": "Running"},
        },
        "ADDED",
    )
    cluster.end_seconds = 0.3
    await started(ann)
    assert cluster.deletions == [("jupyter-ann", 180)]
    assert cluster.pods[REF]["metadata"]["uid"] != "old"
    assert steps(ann)[0] == "Making room: your last server is saving its work."


async def test_a_stop_waits_for_the_time_to_save_beyond_the_start_timeout(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    await started(ann)
    ann.start_timeout = 1
    cluster.end_seconds = 2.5
    await asyncio.wait_for(ann.stop(), 20)
    assert cluster.pods == {}
    assert {grace for _, grace in cluster.deletions} == {180}
    assert await gone(ann)


async def test_a_claim_that_an_operator_removed_is_made_again(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path, port: int
) -> None:
    await started(ann)
    state = ann.get_state()
    await ann.stop()
    cluster.objects["persistentvolumeclaims"].clear()
    again = kube.spawner(kube.settings(tmp_path), port=port)
    again.load_state(state)
    await started(again)
    assert list(cluster.objects["persistentvolumeclaims"]) == ["gpuhub-users/claim-ann"]


async def test_a_restarted_hub_finds_a_running_server(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path, port: int
) -> None:
    await started(ann)
    state = json.loads(json.dumps(ann.get_state()))
    await GpuKubeSpawner._stop_all_reflectors()
    found = kube.spawner(kube.settings(tmp_path), port=port)
    found.load_state(state)
    assert await found.poll() is None
    cluster.remove("pods", REF)
    assert await gone(found)


async def test_a_cluster_that_is_silent_at_the_hubs_start_ends_no_server(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path, port: int
) -> None:
    await started(ann)
    state = ann.get_state()
    await GpuKubeSpawner._stop_all_reflectors()
    cluster.silent = True
    found = kube.spawner(kube.settings(tmp_path), port=port)
    found.load_state(state)
    assert await found.poll() is None
    assert await found.poll() is None
    cluster.silent = False
    assert await found.poll() is None
    cluster.remove("pods", REF)
    assert await gone(found)


async def test_with_a_namespace_per_person_a_silent_cluster_does_not_end_the_hub(
    cluster: PlayedCluster, tmp_path: Path
) -> None:
    cluster.silent = True
    made = kube.spawner(kube.settings(tmp_path, user_namespaces={"hub": "gpuhub", "walls_file": "/none"}))
    assert await made.poll() is None


async def test_a_list_that_lags_behind_ends_no_server(
    cluster: PlayedCluster, ann: GpuKubeSpawner, tmp_path: Path, port: int
) -> None:
    await started(ann)
    state = ann.get_state()
    await GpuKubeSpawner._stop_all_reflectors()
    cluster.lists_lag = True
    found = kube.spawner(kube.settings(tmp_path), port=port)
    found.load_state(state)
    assert await found.poll() is None


async def test_a_watch_that_gave_up_begins_anew(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    class GivesUp(PodReflector):  # type: ignore[misc]
        """As KubeSpawner's own after a minute of errors, the first time."""

        times = 0

        async def _watch_and_update(self) -> None:
            self.times += 1
            if self.times > 1:
                await super()._watch_and_update()

    class Untiring(watching._Untiring, GivesUp):  # type: ignore[misc]
        again_seconds = 0.1

    await started(ann)
    pods = Untiring(parent=ann, namespace=ann.namespace, labels={"component": "singleuser-server"})
    await pods.start()
    assert list(pods.pods) == [REF]
    cluster.remove("pods", REF)
    for _ in range(50):
        if not pods.pods:
            break
        await asyncio.sleep(0.1)
    assert pods.pods == {}
    await pods.stop()


async def test_events_without_a_time_do_no_harm(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    for n in range(2):
        cluster.put(
            "events",
            {
                "metadata": {"namespace": "gpuhub-users", "name": f"x{n}", "uid": f"x{n}"},
                "involvedObject": {"kind": "Pod", "name": "jupyter-ann", "uid": "x"},
                "lastTimestamp": None,
                "eventTime": None,
                "type": "Normal",
                "message": "",
            },
        )
    await started(ann)


async def test_a_silent_cluster_is_said_so(cluster: PlayedCluster, ann: GpuKubeSpawner) -> None:
    cluster.silent = True
    refusal = await refused(ann)
    assert refusal.message.startswith("The cluster does not answer at the moment.")


async def test_a_pod_of_another_start_under_the_same_name_is_not_killed(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    await kube.chosen(ann, {})
    await started(ann)
    ann.api_token = "another-start"
    with pytest.raises(Refusal) as refusal:
        await ann._make_create_pod_request(await kube.manifest(ann), 5)
    assert refusal.value.reason == "saving"
    assert cluster.deletions == []


async def test_an_answer_that_came_too_late_was_still_ours(
    cluster: PlayedCluster, ann: GpuKubeSpawner
) -> None:
    await started(ann)
    assert await ann._make_create_pod_request(await kube.manifest(ann), 5) is True
