"""From what a cluster says to what a person is told."""

from __future__ import annotations

from typing import Any

import pytest

from gpuspawner.starting import HOME_SECONDS, Look, duration, look, refused


def pod(waiting: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    if waiting is not None:
        status["containerStatuses"] = [{"name": "notebook", "image": "x:1", "state": {"waiting": waiting}}]
    return {"metadata": {"name": "jupyter-ann"}, "status": {"phase": "Pending", **status}}


def events(*reasons: str) -> list[dict[str, Any]]:
    return [{"reason": reason, "message": f"raw {reason}"} for reason in reasons]


SCHEDULED = [{"type": "PodScheduled", "status": "True"}]
NO_ROOM = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient memory.",
    }
]
NO_CLAIM = [{**NO_ROOM[0], "message": "pod has unbound immediate PersistentVolumeClaims. not found"}]
LOST_CLAIM = [{**NO_ROOM[0], "message": 'persistentvolumeclaim "claim-ann" not found'}]


@pytest.mark.parametrize(
    ("what", "said", "message"),
    [
        (None, [], "Asking for a place for your server."),
        (pod(), [], "A machine was found. Your home folder is being attached."),
        (pod(conditions=NO_ROOM), [], "Waiting for room: the machines are full at the moment."),
        (
            pod(conditions=NO_ROOM),
            ["TriggeredScaleUp"],
            "Waiting for room: another machine is being started for you.",
        ),
        (pod(conditions=NO_CLAIM), [], "Your home folder is being made."),
        (
            pod({"reason": "ContainerCreating"}),
            ["Scheduled"],
            "A machine was found. Your home folder is being attached.",
        ),
        (
            pod({"reason": "ContainerCreating"}),
            ["Scheduled", "Pulling"],
            "The environment is being fetched to its machine.",
        ),
        (
            pod({"reason": "ContainerCreating"}),
            ["Pulling", "Pulled"],
            "The environment is there. Your server is being made.",
        ),
        (
            pod({"reason": "ContainerCreating"}),
            ["FailedMount"],
            "Your home folder is being attached; this takes longer than usual.",
        ),
        (
            pod(containerStatuses=[{"name": "notebook", "state": {"running": {}}}]),
            ["Pulled"],
            "Starting JupyterLab.",
        ),
    ],
)
def test_a_step_is_said_in_plain_words(what: Any, said: list[str], message: str) -> None:
    found = look(what, events(*said), "JupyterLab")
    assert found.message == message
    assert "raw" not in found.message


def test_waiting_for_room_is_no_trouble_however_long() -> None:
    assert look(pod(conditions=NO_ROOM), []).trouble is None


@pytest.mark.parametrize(
    ("waiting", "reason", "at_once"),
    [
        ({"reason": "InvalidImageName", "message": "couldn't parse"}, "image", True),
        ({"reason": "ErrImageNeverPull", "message": ""}, "image", True),
        ({"reason": "ErrImagePull", "message": "x:1: not found"}, "image", True),
        ({"reason": "ImagePullBackOff", "message": "401 unauthorized"}, "image", True),
        ({"reason": "ImagePullBackOff", "message": "dial tcp: i/o timeout"}, "image", False),
        ({"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}, "environments", False),
        ({"reason": "CreateContainerError", "message": "no command"}, "environments", True),
    ],
)
def test_what_cannot_be_is_trouble_at_once_and_what_may_pass_is_waited_for(
    waiting: dict[str, str], reason: str, at_once: bool
) -> None:
    trouble = trouble_of(look(pod(waiting), []))
    assert trouble.reason == reason
    assert (trouble.after_seconds == 0) is at_once
    assert waiting["message"] in trouble.details


def test_a_home_that_cannot_be_attached_or_made_has_its_time() -> None:
    attaching = trouble_of(look(pod({"reason": "ContainerCreating"}), events("FailedAttachVolume")))
    making = trouble_of(look(pod(conditions=NO_CLAIM), []))
    assert attaching.after_seconds == making.after_seconds == HOME_SECONDS
    assert attaching.details == "raw FailedAttachVolume"


def test_a_home_that_is_not_there_has_less() -> None:
    assert 0 < trouble_of(look(pod(conditions=LOST_CLAIM), [])).after_seconds < HOME_SECONDS


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, "Your server needed more memory than its size allows."),
        ({"exitCode": 1, "message": "[Errno 122] Disk quota exceeded"}, "Your home folder is full."),
        ({"exitCode": 1, "message": "Traceback"}, "Your server ended right after its start."),
        ({"exitCode": 0}, "Your server ended right after its start."),
    ],
)
def test_an_end_says_why(ended: dict[str, Any], message: str) -> None:
    now = pod(containerStatuses=[{"name": "notebook", "state": {"terminated": ended}}])
    again = pod(
        containerStatuses=[
            {
                "name": "notebook",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
        ]
    )
    assert trouble_of(look(now, [])).message == message
    assert trouble_of(look(again, [])).message == message


def test_an_init_container_that_is_done_is_no_trouble() -> None:
    done = {"name": "first", "state": {"terminated": {"exitCode": 0}}}
    assert look(pod(initContainerStatuses=[done]), []).trouble is None


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (403, "exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5", "quota"),
        (403, "failed quota: q: must specify limits.cpu", "quota"),
        (403, "maximum memory usage per Container is 2Gi, but limit is 4Gi", "size"),
        (403, 'violates PodSecurity "restricted:latest": privileged', "rule"),
        (400, 'admission webhook "x" denied the request: no', "rule"),
        (404, 'namespaces "gpuhub-users" not found', "place"),
        (403, "unable to create new content in namespace x because it is being terminated", "place"),
        (403, 'User "system:serviceaccount:gpuhub:hub" cannot create resource "pods"', "rights"),
        (422, "spec.containers[0].image: Required value", "environments"),
        (500, "etcdserver: request timed out", "cluster"),
        (None, "", "cluster"),
    ],
)
def test_a_request_that_was_not_granted_has_its_sentence(status: int | None, text: str, reason: str) -> None:
    trouble = refused(status, text)
    assert trouble.reason == reason
    assert trouble.details == text
    assert "pod" not in trouble.message.lower()


def test_several_limits_are_named_each() -> None:
    text = (
        "exceeded quota: q, requested: limits.cpu=2,pods=1, used: limits.cpu=3,pods=5, "
        "limited: limits.cpu=4,pods=5"
    )
    said = refused(403, text).message
    assert "CPUs 3 of 4 used, 2 asked for; servers and GPUs at once 5 of 5 used, 1 asked for" in said


def test_a_time_is_said_in_steps() -> None:
    assert [duration(s) for s in (0, 7, 59, 60, 179)] == ["0 s", "5 s", "55 s", "1 min", "2 min"]


def trouble_of(found: Look) -> Any:
    assert found.trouble is not None
    return found.trouble
