"""The cluster keeps what it promises: else every other test here would be worth nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.build import CACHE, KUBERNETES
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.kubectl import Refused
from tests.cluster.pods import claim, probe_pod, web_pod
from tests.cluster.sandbox import GROUPS
from tests.cluster.waiting import ClusterError, until

pytestmark = pytest.mark.root
PATIENCE_SECONDS = 90.0


def test_the_node_is_a_current_kubernetes(cluster: Cluster) -> None:
    info = cluster.node()["status"]["nodeInfo"]

    assert info["kubeletVersion"] == f"v{KUBERNETES}"
    assert cluster.node_ready()
    assert cluster.allocatable_gpus() == len(cluster.gpus.ids()) == 4


def test_a_pod_gets_a_gpu_and_a_home(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(claim(namespace, "home", "ReadWriteOnce"))
    script = "echo mine >/home/probe/file; stat -c '%u:%g' /home/probe/file; echo $NVIDIA_VISIBLE_DEVICES"
    cluster.kubectl.apply(probe_pod(namespace, "worker", "sh", "-c", script, gpus=1, claim="home"))

    cluster.wait_ended(namespace, "worker")

    owner, devices = cluster.kubectl("logs", "-n", namespace, "worker").splitlines()
    assert owner == "1000:1000"
    assert devices in cluster.gpus.ids()


def test_a_container_may_write_where_its_gpu_is_used(cluster: Cluster, namespace: str) -> None:
    every = 'for gpu in $(echo $NVIDIA_VISIBLE_DEVICES | tr , " ")'
    script = f"{every}; do touch /run/gpu/$gpu/mark && echo $gpu; done"
    cluster.kubectl.apply(probe_pod(namespace, "worker", "sh", "-c", script, gpus=2))

    cluster.wait_ended(namespace, "worker")

    used = cluster.kubectl("logs", "-n", namespace, "worker").split()
    marked = [
        gpu
        for index, gpu in enumerate(cluster.gpus.ids())
        if (cluster.gpus.use_folder(index) / "mark").exists()
    ]
    for index in range(4):
        (cluster.gpus.use_folder(index) / "mark").unlink(missing_ok=True)
    assert sorted(used) == sorted(marked)
    assert len(used) == 2


def test_two_pods_share_a_claim_and_its_folder_goes_with_it(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(claim(namespace, "shared", "ReadWriteMany"))
    cluster.kubectl.apply([probe_pod(namespace, name, claim="shared") for name in ("one", "two")])
    for name in ("one", "two"):
        cluster.wait_ready(namespace, name)

    cluster.run_in(namespace, "one", "sh", "-c", "echo hello >/home/probe/letter")

    assert cluster.run_in(namespace, "two", "cat", "/home/probe/letter") == "hello\n"
    volume = cluster.kubectl.get("pvc", "shared", namespace)
    assert volume is not None
    folder = cluster.folder / "claims" / volume["spec"]["volumeName"]
    assert (folder / "letter").exists()
    cluster.kubectl("delete", "pod,pvc", "--all", "-n", namespace, "--now")
    until(lambda: not folder.exists(), "the claim's folder is removed", PATIENCE_SECONDS)


def test_who_asks_for_more_gpus_than_are_free_waits(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "greedy", gpus=5))

    seen = cluster.wait_for("pod", "greedy", namespace, _unschedulable, "waits", PATIENCE_SECONDS)

    assert "Insufficient nvidia.com/gpu" in _unschedulable(seen)


def test_a_broken_gpu_is_not_offered_until_it_is_mended(cluster: Cluster) -> None:
    cluster.gpus.set_health(2, False)
    try:
        until(lambda: cluster.allocatable_gpus() == 3, "three GPUs on offer", PATIENCE_SECONDS)
    finally:
        cluster.gpus.set_health(2, True)
    until(lambda: cluster.allocatable_gpus() == 4, "four GPUs on offer", PATIENCE_SECONDS)


def test_a_gpu_pod_outlives_a_new_kubelet_which_offers_the_gpus_again(
    cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "worker", gpus=1))
    started = cluster.wait_ready(namespace, "worker")["status"]["containerStatuses"][0]["containerID"]
    registered = _registrations(cluster)

    cluster.restart("kubelet")

    until(lambda: _registrations(cluster) > registered, "the plugin registers again", PATIENCE_SECONDS)
    until(lambda: cluster.allocatable_gpus() == 4, "four GPUs on offer", PATIENCE_SECONDS)
    pod = cluster.wait_ready(namespace, "worker")
    assert pod["status"]["containerStatuses"][0]["containerID"] == started


def test_a_network_policy_lets_only_its_friends_in(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(
        [
            web_pod(namespace, "server", 8080, {"app": "server"}),
            _service(namespace, "server", 8080),
            probe_pod(namespace, "friend", labels={"role": "friend"}),
            probe_pod(namespace, "stranger"),
        ]
    )
    address = cluster.wait_ready(namespace, "server")["status"]["podIP"]
    for name in ("friend", "stranger"):
        cluster.wait_ready(namespace, name)
    assert _fetches(cluster, namespace, "stranger", f"http://{address}:8080/")

    cluster.kubectl.apply(_policy(namespace, "server", port="web", friend="friend"))

    until(
        lambda: not _fetches(cluster, namespace, "stranger", f"http://{address}:8080/"),
        "blocked",
        PATIENCE_SECONDS,
    )
    assert _fetches(cluster, namespace, "friend", f"http://{address}:8080/")
    assert _fetches(cluster, namespace, "friend", f"http://server.{namespace}.svc:8080/")
    assert not _fetches(cluster, namespace, "stranger", f"http://server.{namespace}.svc:8080/")
    assert not _fetches(cluster, namespace, "friend", f"http://{address}:8081/")
    assert cluster.kubectl.get("pod", "server", namespace) is not None
    cluster.kubectl("delete", "networkpolicy", "--all", "-n", namespace)
    until(
        lambda: _fetches(cluster, namespace, "stranger", f"http://{address}:8080/"),
        "open again",
        PATIENCE_SECONDS,
    )


def test_a_pod_that_may_only_ask_for_names_reaches_nothing_else(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "prisoner", labels={"app": "prisoner"}))
    cluster.wait_ready(namespace, "prisoner")
    api = cluster.numbers.api_ip
    assert _connects(cluster, namespace, "prisoner", api, 443)
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    spec = {
        "podSelector": {"matchLabels": {"app": "prisoner"}},
        "policyTypes": ["Egress"],
        "egress": [{"ports": ports}],
    }

    cluster.kubectl.apply(_network_policy(namespace, "names-only", spec))

    until(
        lambda: not _connects(cluster, namespace, "prisoner", api, 443),
        "no way to the API server",
        PATIENCE_SECONDS,
    )
    assert "10.214." in cluster.run_in(
        namespace, "prisoner", "nslookup", "kubernetes.default.svc.cluster.local"
    )


def test_names_outside_the_cluster_do_not_exist_and_say_so_at_once(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "asker"))
    cluster.wait_ready(namespace, "asker")
    begun = time.monotonic()

    answer = cluster.kubectl.run("exec", "-n", namespace, "asker", "--", "nslookup", "example.org.")

    assert answer.returncode != 0
    assert "NXDOMAIN" in answer.stdout + answer.stderr
    assert time.monotonic() - begun < 10


def test_a_pod_reaches_this_machine_and_nothing_beyond(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("host")
    with _web_server(tmp_path, cluster.host_ip) as port:
        cluster.kubectl.apply(probe_pod(namespace, "caller"))
        cluster.wait_ready(namespace, "caller")

        assert _fetches(cluster, namespace, "caller", f"http://{cluster.host_ip}:{port}/")
        assert not _connects(cluster, namespace, "caller", "198.51.100.1", 80)


def test_a_quota_on_gpus_refuses_what_exceeds_it(cluster: Cluster, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": namespace},
        "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
    }
    cluster.kubectl.apply(quota)
    cluster.wait_for(
        "resourcequota", "gpus", namespace, lambda one: "used" in one.get("status", {}), "counts", 30
    )

    with pytest.raises(Refused, match=r"exceeded quota: gpus, requested: requests.nvidia.com/gpu=2"):
        cluster.kubectl.apply(probe_pod(namespace, "two", gpus=2))


def test_a_restricted_namespace_refuses_root(cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.namespace("t-restricted", labels) as namespace:
        cluster.kubectl.apply(probe_pod(namespace, "good"))
        bad = probe_pod(namespace, "bad")
        bad["spec"]["securityContext"]["runAsUser"] = 0

        with pytest.raises(Refused, match='violates PodSecurity "restricted:latest"'):
            cluster.kubectl.apply(bad)


def test_a_wait_that_fails_shows_what_the_pod_said(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl.apply(probe_pod(namespace, "sad", "sh", "-c", "echo the disk is full; exit 3"))
    cluster.wait_ended(namespace, "sad")

    with pytest.raises(ClusterError, match="the disk is full"):
        cluster.wait_ready(namespace, "sad", seconds=0.1)


def test_a_second_cluster_runs_beside_the_first_and_leaves_the_machine_as_it_was(
    cluster: Cluster, namespace: str
) -> None:
    before = _machine()
    folder = CACHE / f"test-{os.getpid()}-second"
    with running_cluster(folder) as second:
        assert second.node_ip != cluster.node_ip
        with second.namespace("t-second") as there:
            second.kubectl.apply(probe_pod(there, "worker", gpus=4))
            second.wait_ready(there, "worker")
        assert cluster.allocatable_gpus() == 4
        assert _settings() == before["settings"]

    assert not folder.exists()
    assert _machine() == before
    cluster.kubectl.apply(probe_pod(namespace, "after"))
    cluster.wait_ready(namespace, "after")


def test_a_cluster_ends_with_whoever_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.cluster.addresses import take_numbers\n"
        "from tests.cluster.sandbox import Sandbox\n"
        "folder = Path(sys.argv[1]); sandbox = Sandbox(folder, take_numbers()); sandbox.start()\n"
        "print(sandbox.pid, sandbox.numbers.group, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter:
        pid, group = starter.stdout.readline().split()
        starter.kill()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the node ends", 10)

    # What a crash leaves is taken over by the next cluster of that number, and removed with it.
    for leftover in GROUPS.glob(f"*/{group}"):
        leftover.rmdir()


# --- what the tests ask


def _unschedulable(pod: dict[str, Any]) -> str:
    conditions = pod["status"].get("conditions", [])
    return next(
        (str(one.get("message", "")) for one in conditions if one.get("reason") == "Unschedulable"), ""
    )


def _registrations(cluster: Cluster) -> int:
    return cluster.processes.log("deviceplugin").read_text().count("registered\n")


def _fetches(cluster: Cluster, namespace: str, pod: str, url: str) -> bool:
    return _works(cluster, namespace, pod, "wget", "-q", "-O", "-", url)


def _connects(cluster: Cluster, namespace: str, pod: str, address: str, port: int) -> bool:
    return _works(cluster, namespace, pod, "nc", address, str(port), "-e", "/bin/true")


def _works(cluster: Cluster, namespace: str, pod: str, *command: str) -> bool:
    # A packet that is dropped is never answered, and these programs know no limit of their own.
    done = cluster.kubectl.run("exec", "-n", namespace, pod, "--", "timeout", "2", *command)
    said = done.stderr.lower()
    assert "usage:" not in said, said
    return done.returncode == 0


def _service(namespace: str, app: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {"selector": {"app": app}, "ports": [{"port": port}]},
    }


def _policy(namespace: str, app: str, port: str, friend: str) -> dict[str, Any]:
    rule = {"from": [{"podSelector": {"matchLabels": {"role": friend}}}], "ports": [{"port": port}]}
    selector = {"matchLabels": {"app": app}}
    return _network_policy(
        namespace, app, {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [rule]}
    )


def _network_policy(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@contextlib.contextmanager
def _web_server(folder: Path, address: str) -> Iterator[int]:
    command = [sys.executable, "-u", "-m", "http.server", "--bind", address, "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().split(" port ")[1].split()[0])
        finally:
            server.kill()


def _settings() -> dict[str, str]:
    """The kernel's settings that a kubelet, a service proxy and a bridge plugin would write."""
    names = "vm/overcommit_memory kernel/panic kernel/panic_on_oops net/ipv4/ip_forward"
    return {name: (Path("/proc/sys") / name).read_text() for name in names.split()}


def _machine() -> dict[str, Any]:
    """What a cluster could leave on this machine. Other programs come and go, so only kinds of things."""

    def said(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()

    groups = (path.name for path in GROUPS.glob("*/*") if path.name.startswith(("gpuhub-cluster", "kube")))
    links = {line.split(":")[1].strip() for line in said("ip", "-o", "link")}
    return {
        "settings": _settings(),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "links": {link.split("@")[0] for link in links if link.startswith(("ghc", "cni", "veth", "kube"))},
        "routes": {line.strip() for line in said("ip", "route") if line.startswith("10.21")},
        "rules": [line.strip() for line in said("nft", "list", "tables")],
        "groups": set(groups),
        "folders": {
            name
            for name in (
                "/var/lib/kubelet",
                "/var/lib/cni",
                "/run/containerd",
                "/var/lib/containerd",
                "/etc/cni",
            )
            if Path(name).exists()
        },
    }
