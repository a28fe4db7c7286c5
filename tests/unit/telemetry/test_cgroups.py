"""The pod of a process, from cgroup texts as real nodes have them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuhub.telemetry.cgroups import pod_of, pod_uid, pod_uids

UID = "3f1c5a2e-3c0b-4f5e-9a53-2d1f7d0e4b11"
LINES = UID.replace("-", "_")
STATIC = "0123456789abcdef0123456789abcdef"
CONTAINER = "4be5ec0ad6f4a1f0c4a1a8f4b6c3f2b14be5ec0ad6f4a1f0c4a1a8f4b6c3f2b1"

POD_FORMS = {
    "cgroup v2, systemd, containerd": f"0::/kubepods.slice/kubepods-burstable.slice/"
    f"kubepods-burstable-pod{LINES}.slice/cri-containerd-{CONTAINER}.scope",
    "cgroup v2, systemd, cri-o": f"0::/kubepods.slice/kubepods-besteffort.slice/"
    f"kubepods-besteffort-pod{LINES}.slice/crio-{CONTAINER}.scope/container",
    "cgroup v2, systemd, docker": f"0::/kubepods.slice/kubepods-pod{LINES}.slice/docker-{CONTAINER}.scope",
    "cgroup v2, cgroupfs, containerd": f"0::/kubepods/burstable/pod{UID}/{CONTAINER}",
    "cgroup v2, cgroupfs, guaranteed": f"0::/kubepods/pod{UID}/{CONTAINER}",
    "cgroup v2, seen from another container": "0::/../../../kubepods-besteffort.slice/"
    f"kubepods-besteffort-pod{LINES}.slice/cri-containerd-{CONTAINER}.scope",
    "cgroup v2, seen from another container, cgroupfs": f"0::/../../pod{UID}/{CONTAINER}",
    "cgroup v1, cgroupfs, containerd": f"12:memory:/kubepods/burstable/pod{UID}/{CONTAINER}\n"
    f"11:pids:/kubepods/burstable/pod{UID}/{CONTAINER}\n"
    f"1:name=systemd:/kubepods/burstable/pod{UID}/{CONTAINER}\n0::/\n",
    "cgroup v1, cgroupfs, docker": f"9:cpu,cpuacct:/kubepods/besteffort/pod{UID}/{CONTAINER}",
    "cgroup v1, systemd, containerd": f"5:devices:/system.slice/containerd.service/"
    f"kubepods-burstable-pod{LINES}.slice:cri-containerd:{CONTAINER}",
    "cgroup v1, systemd, cri-o": f"8:cpuset:/kubepods.slice/kubepods-burstable.slice/"
    f"kubepods-burstable-pod{LINES}.slice/crio-{CONTAINER}.scope",
    "kubelet with a cgroup root of its own": f"7:blkio:/ghc/kubepods/burstable/pod{UID}/{CONTAINER}",
    "kind: a node that is itself a container": f"0::/system.slice/docker-{CONTAINER}.scope/kubelet.slice/"
    f"kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
    f"kubelet-kubepods-burstable-pod{LINES}.slice/cri-containerd-{CONTAINER}.scope",
    "the first line is no pod's": "13:misc:/\n12:rdma:/\n"
    f"11:memory:/kubepods/besteffort/pod{UID}/{CONTAINER}",
    "a container that makes groups of its own": f"0::/kubepods/burstable/pod{UID}/{CONTAINER}/"
    "pod99999999-9999-9999-9999-999999999999/x",
}

NO_POD = {
    "nothing": "",
    "the machine itself": "0::/init.scope",
    "a login": "0::/user.slice/user-1000.slice/session-2.scope",
    "docker without Kubernetes": f"9:memory:/docker/{CONTAINER}",
    "a service": "0::/system.slice/kubelet.service",
    "a folder that only begins so": f"0::/kubepods/burstable/pod{UID}x/{CONTAINER}",
    "a uid that is none": "0::/kubepods/burstable/pod-1234/x",
    "no colons": f"/kubepods/burstable/pod{UID}/{CONTAINER}",
    "rubbish": "\x00\ud800:::::pod\n" * 100,
}


@pytest.mark.parametrize("form", POD_FORMS)
def test_a_pod_is_known_by_its_cgroup(form: str) -> None:
    assert pod_uid(POD_FORMS[form]) == UID


def test_a_static_pods_uid_has_no_dashes() -> None:
    assert pod_uid(f"0::/kubepods/burstable/pod{STATIC}/{CONTAINER}") == STATIC


@pytest.mark.parametrize("form", NO_POD)
def test_what_is_in_no_pod_is_nobodys(form: str) -> None:
    assert pod_uid(NO_POD[form]) is None


@given(st.text(alphabet="kubepods-.slice/:pod_0123456789abcdef\n\x00", max_size=400))
def test_any_text_at_all_gives_a_uid_or_nothing(text: str) -> None:
    found = pod_uid(text)
    assert found is None or re.fullmatch(r"[0-9a-f-]{32,36}", found)


def test_a_process_of_this_machine_can_be_looked_up_and_one_that_is_gone_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(POD_FORMS["cgroup v2, cgroupfs, containerd"])
    assert pod_of(7, tmp_path) == UID
    assert pod_of(8, tmp_path) is None
    assert pod_of(os.getpid()) is None or len(str(pod_of(os.getpid()))) >= 32


def test_pods_uids_are_read_from_the_folders_of_their_logs(tmp_path: Path) -> None:
    for name in (f"users_gpu-1_{UID}", f"users_twice_{UID}", f"users_twice_{STATIC}", "rubbish", "a_b_c_d"):
        (tmp_path / name).mkdir()
    assert pod_uids(tmp_path) == {("users", "gpu-1"): UID}
    assert pod_uids(tmp_path / "none") == {}
