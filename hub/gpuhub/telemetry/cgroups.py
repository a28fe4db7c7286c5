"""Which pod a process belongs to, read from ``/proc/PID/cgroup``; and which pod has which uid.

Pure but for the two readers at the end. Promises: a line in none of the known forms gives no pod,
never a wrong one; of several pods in one path the outermost counts (inner names are a container's own).
"""

from __future__ import annotations

import re
from pathlib import Path

PROC = Path("/proc")
POD_LOGS = Path("/var/log/pods")
"""The kubelet makes one folder per pod here: ``NAMESPACE_NAME_UID``."""

MAX_CGROUP_CHARACTERS = 64 * 1024

_UID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_CGROUPFS = re.compile(rf"pod({_UID})")
"""The kubelet's cgroupfs driver: ``…/burstable/pod1234…/CONTAINER``. A static pod's uid is 32 hex digits."""
_SYSTEMD = re.compile(rf"(?:[a-z0-9_.]+-)*?kubepods(?:-besteffort|-burstable)?-pod({_UID})\.slice")
"""Its systemd driver writes dashes as underscores: ``…/kubepods-burstable-pod1234_….slice/…``."""
_SEGMENTS = re.compile(r"[/:]")
"""Docker and CRI-O once wrote ``SLICE:RUNTIME:CONTAINER`` as one segment."""


def pod_uid(cgroup: str) -> str | None:
    """Return the pod's uid from the text of ``/proc/PID/cgroup``, cgroup v1 or v2; None: no pod."""
    for line in cgroup.splitlines():
        _, _, path = line.partition(":")[2].partition(":")
        for segment in _SEGMENTS.split(path):
            found = _CGROUPFS.fullmatch(segment) or _SYSTEMD.fullmatch(segment)
            if found:
                return found[1].replace("_", "-")
    return None


def pod_of(pid: int, proc: Path = PROC) -> str | None:
    """Return the uid of the pod that a process of this machine belongs to."""
    try:
        with open(proc / str(pid) / "cgroup", encoding="utf-8", errors="replace") as file:
            return pod_uid(file.read(MAX_CGROUP_CHARACTERS))
    except OSError:
        return None


def pod_uids(folder: Path = POD_LOGS) -> dict[tuple[str, str], str]:
    """Return the uid of each (namespace, name) that has a folder for logs; empty where there is none.

    A name that several folders claim (a pod that was made anew) is left out: better nothing than a guess.
    """
    found: dict[tuple[str, str], str | None] = {}
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return {}
    for name in names:
        parts = name.split("_")
        if len(parts) == 3 and all(parts):
            key = (parts[0], parts[1])
            found[key] = None if key in found else parts[2]
    return {key: uid for key, uid in found.items() if uid is not None}
