"""A start on a cluster, in plain words: pure, from what the cluster says to what a person is told.

`look` turns a pod and its events into the step that is going on, or into what is wrong (`Trouble`):
one sentence, what to do, and the cluster's own words as details for a fold. `refused` does the same for
a request that the cluster's API did not grant. Promises: no word of Kubernetes outside the details; a
thing that may pass by itself is trouble only after a while (``after_seconds``), a thing that cannot is
trouble at once; whoever waits for room waits, and is told so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from gpuspawner.language import N_, Sentence

Raw = Mapping[str, Any]

ASK_OPERATOR = N_("Tell your operator.")
OTHER_ENVIRONMENT = N_("Choose another environment, or show the details to your operator.")
AGAIN = N_("Try again in a minute; if it stays, tell your operator.")

FETCH_AGAIN_SECONDS = 35.0
"""A registry that hiccups answers at one of the node's next two tries (after 10 and 30 s)."""
HOME_SECONDS = 150.0
"""A volume moves from another machine in about a minute; a new one is made in as long."""
SETUP_SECONDS = 20.0
"""A Secret or ConfigMap that is made at the same moment is there by then."""

NOTEBOOK = "notebook"
NEVER_FETCHED = ("InvalidImageName", "ErrImageNeverPull")
NOT_FETCHED = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError")
SURELY_MISSING = re.compile(
    r"not found|manifest unknown|no such manifest|unauthorized|authentication required|access denied|"
    r"denied: |403 Forbidden|does not exist|no match for platform|invalid reference",
    re.IGNORECASE,
)
NOT_SET_UP = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PostStartHookError")
FULL = re.compile(r"No space left on device|Disk quota exceeded|disk is full", re.IGNORECASE)
QUOTA = re.compile(
    r"exceeded quota: \S+, requested: (?P<asked>\S+), used: (?P<used>\S+), limited: (?P<limit>\S+)"
)
LIMITS = {
    "cpu": N_("CPUs"),
    "requests.cpu": N_("CPUs"),
    "limits.cpu": N_("CPUs"),
    "memory": N_("memory"),
    "requests.memory": N_("memory"),
    "limits.memory": N_("memory"),
    "requests.storage": N_("storage"),
    "persistentvolumeclaims": N_("home folders"),
    "pods": N_("servers and GPUs at once"),
    "count/pods": N_("servers and GPUs at once"),
}


@dataclass(frozen=True)
class Trouble:
    """What is wrong, for a person. ``reason`` labels it in the hub's metrics."""

    message: str
    hint: str
    reason: str
    details: str = ""
    after_seconds: float = 0.0
    """It counts once it has lasted this long."""


@dataclass(frozen=True)
class Look:
    """What goes on. ``timed``: the step says for how long. ``late``: what to say when the time is over."""

    step: str
    share: int
    message: str
    timed: bool = False
    late: str = N_("Your server did not start in time.")
    trouble: Trouble | None = None


def look(pod: Raw | None, events: Sequence[Raw], title: str = "your server") -> Look:
    """Return what is going on with the pod (as the API says it); ``events`` are its own, oldest first."""
    if pod is None:
        return Look("asked", 15, "Asking for a place for your server.")
    status = pod.get("status") or {}
    if "deletionTimestamp" in (pod.get("metadata") or {}) or status.get("phase") == "Failed":
        return _gone(status)
    room = _waiting_for_room(status, events)
    if room is not None:
        return room
    for container in _containers(status):
        found = _container_trouble(container)
        if found is not None:
            return found
    return _on_its_way(status, events, title)


def refused(status: int | None, text: str) -> Trouble:
    """Return what it means that the API answered ``status`` with ``text`` (None: it did not answer)."""
    quota = QUOTA.search(text)
    if quota is not None:
        return Trouble(
            Sentence("A limit that is set here is reached: {what}.", what=_quota(quota)),
            "Choose a smaller size, or try again when somebody has stopped a server.",
            "quota",
            text,
        )
    if "failed quota" in text:
        return Trouble("The limits set here want a size for each server.", ASK_OPERATOR, "quota", text)
    if re.search(r"(maximum|minimum) \S+ usage per", text):
        return Trouble("This size is not allowed here.", "Choose another size.", "size", text)
    if "violates PodSecurity" in text or "denied the request" in text or "denied request" in text:
        return Trouble("A rule of the cluster does not allow this server.", OTHER_ENVIRONMENT, "rule", text)
    if "is being terminated" in text or status == 404:
        return Trouble("The place for servers does not exist.", ASK_OPERATOR, "place", text)
    if status in (401, 403):
        return Trouble("The hub may not start servers here.", ASK_OPERATOR, "rights", text)
    if status in (400, 422):
        return Trouble("The chosen environment is not set up rightly.", ASK_OPERATOR, "environments", text)
    return Trouble("The cluster does not answer at the moment.", AGAIN, "cluster", text)


def duration(seconds: float) -> str:
    """Return ``40 s``, ``3 min``: in steps, so that a line does not change each second."""
    if seconds < 60:
        return Sentence("{seconds} s", seconds=int(seconds) // 5 * 5)
    return Sentence("{minutes} min", minutes=int(seconds) // 60)


# --- inside


def _gone(status: Raw) -> Look:
    evicted = status.get("reason") == "Evicted"
    return Look(
        "gone",
        15,
        "Your server is being ended.",
        trouble=Trouble(
            N_("Your server's machine ran out of room.")
            if evicted
            else N_("Your server was ended while it started."),
            N_("Try again.") if evicted else AGAIN,
            "ended",
            str(status.get("message") or ""),
        ),
    )


def _waiting_for_room(status: Raw, events: Sequence[Raw]) -> Look | None:
    said = next((c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled"), None)
    if said is None or said.get("status") == "True":
        return None
    why = str(said.get("message") or "")
    if "persistentvolumeclaim" in why.lower():
        missing = re.search(r'persistentvolumeclaim "[^"]*" not found', why) is not None
        return Look(
            "home",
            25,
            "Your home folder is being made.",
            timed=True,
            late="Your home folder could not be made in time.",
            trouble=Trouble(
                "Your home folder could not be made.",
                ASK_OPERATOR,
                "home",
                why,
                after_seconds=SETUP_SECONDS if missing else HOME_SECONDS,
            ),
        )
    if said.get("reason") not in ("Unschedulable", "SchedulingGated"):
        return Look("asked", 15, "Asking for a place for your server.")
    late = N_("There was no room for your server in time.")
    if any(event.get("reason") == "TriggeredScaleUp" for event in events):
        message = N_("Waiting for room: another machine is being started for you.")
    else:
        message = N_("Waiting for room: the machines are full at the moment.")
    return Look("room", 20, message, timed=True, late=late)


def _containers(status: Raw) -> Iterator[Raw]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _container_trouble(container: Raw) -> Look | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, text = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in NEVER_FETCHED or reason in NOT_FETCHED:
        sure = reason in NEVER_FETCHED or SURELY_MISSING.search(text) is not None
        return Look(
            "refetching",
            45,
            "The environment could not be fetched; trying again.",
            timed=True,
            trouble=Trouble(
                "The chosen environment cannot be fetched.",
                OTHER_ENVIRONMENT,
                "image",
                f"{container.get('image')}: {text or reason}",
                after_seconds=0.0 if sure else FETCH_AGAIN_SECONDS,
            ),
        )
    if reason in NOT_SET_UP:
        return Look(
            "setup",
            55,
            "Your server is being set up.",
            trouble=Trouble(
                "The chosen environment is not set up rightly.",
                OTHER_ENVIRONMENT,
                "environments",
                f"{reason}: {text}",
                after_seconds=SETUP_SECONDS if reason == "CreateContainerConfigError" else 0.0,
            ),
        )
    ended = state.get("terminated") or {}
    if not ended and reason == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {}
    if ended and (container.get("name") == NOTEBOOK or ended.get("exitCode")):
        return _ended(ended)
    return None


def _ended(ended: Raw) -> Look:
    text = str(ended.get("message") or "")
    details = f"exit code {ended.get('exitCode')} ({ended.get('reason')})\n{text}".strip()
    if ended.get("reason") == "OOMKilled":
        trouble = Trouble(
            "Your server needed more memory than its size allows.", "Choose a larger size.", "memory", details
        )
    elif FULL.search(text):
        trouble = Trouble(
            "Your home folder is full.", "Ask your operator to make room in it.", "home-full", details
        )
    else:
        trouble = Trouble("Your server ended right after its start.", OTHER_ENVIRONMENT, "exited", details)
    return Look("ended", 75, "Your server has ended.", trouble=trouble)


def _on_its_way(status: Raw, events: Sequence[Raw], title: str) -> Look:
    containers = status.get("containerStatuses") or []
    notebook = next((c for c in containers if c.get("name") == NOTEBOOK), {})
    if "running" in (notebook.get("state") or {}):
        return Look(
            "running",
            75,
            Sentence("Starting {what}.", what=title),
            late="Your server started, but it does not answer.",
        )
    last = {str(event.get("reason")): n for n, event in enumerate(events)}
    mounting = max(last.get("FailedMount", -1), last.get("FailedAttachVolume", -1))
    if mounting >= 0 and mounting > max(last.get("Pulling", -1), last.get("Pulled", -1)):
        return Look(
            "home",
            35,
            "Your home folder is being attached; this takes longer than usual.",
            timed=True,
            late="Your home folder could not be attached in time.",
            trouble=Trouble(
                "Your home folder could not be attached.",
                AGAIN,
                "home",
                str(events[mounting].get("message") or ""),
                after_seconds=HOME_SECONDS,
            ),
        )
    if last.get("Pulling", -1) > last.get("Pulled", -1):
        return Look(
            "fetching",
            45,
            "The environment is being fetched to its machine.",
            timed=True,
            late="The environment could not be fetched in time.",
        )
    if "Pulled" in last:
        return Look("making", 60, "The environment is there. Your server is being made.")
    return Look("home", 35, "A machine was found. Your home folder is being attached.")


def _quota(found: re.Match[str]) -> str:
    """Return ``CPUs 4 of 4 used, 1 asked for``. Raw names where we have no word for them."""
    asked, used, limit = (_pairs(found[name]) for name in ("asked", "used", "limit"))
    said = [
        Sentence(
            "{what} {used} of {limit} used, {asked} asked for",
            what=LIMITS.get(name, name),
            used=used.get(name, "?"),
            limit=limit.get(name, "?"),
            asked=value,
        )
        for name, value in asked.items()
    ]
    first, *others = dict.fromkeys(said)
    return reduce(lambda one, more: Sentence("{one}; {more}", one=one, more=more), others, first)


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.rstrip(".").split(",") if "=" in pair)
