"""A whole cluster of one node: started, used, watched and ended.

`running_cluster` starts one that ends with the block; `Cluster.of` finds one that somebody else started
(`make cluster`). What it promises to who uses it: the node is Ready, its simulated GPUs can be had, claims
get volumes, names resolve, network policies hold, and every wait that fails shows what the cluster said.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cluster.addresses import NODE, Numbers, take_numbers
from tests.cluster.build import program
from tests.cluster.certificates import Certificates, make_certificates
from tests.cluster.components import CONTAINERD_SOCKET, Components
from tests.cluster.controlplane import API_NAMES, ControlPlane, Place
from tests.cluster.gpus import RESOURCE, Gpus
from tests.cluster.kubectl import Kubectl
from tests.cluster.node import NodeProcesses
from tests.cluster.objects import system_objects
from tests.cluster.processes import require_alive
from tests.cluster.sandbox import Sandbox, require_machine
from tests.cluster.smallimages import write_small_images
from tests.cluster.waiting import ClusterError, tail, until

START_SECONDS = 120.0
IMPORT_SECONDS = 600.0
POD_SECONDS = 120.0


class Cluster:
    """A running cluster, whoever started it."""

    def __init__(self, sandbox: Sandbox, mounts: tuple[str, ...] = ()) -> None:
        self.sandbox, self.folder = sandbox, sandbox.folder
        self.numbers: Numbers = sandbox.numbers
        self.certificates = Certificates(self.folder / "pki")
        self.processes = NodeProcesses(sandbox)
        place = Place(self.folder, self.numbers.node_ip, self.numbers.services, self.numbers.pods)
        self.control_plane = ControlPlane(place, self.processes, self.certificates)
        self.components = Components(self.folder, self.numbers, self.certificates, self.processes, mounts)
        self.gpus = Gpus(self.folder / "gpus")
        self.kubectl: Kubectl = self.control_plane.kubectl
        self._starters: dict[str, Callable[[], None]] = {
            "containerd": self.components.start_containerd,
            "etcd": self.control_plane.start_etcd,
            "kube-apiserver": self.control_plane.start_api_server,
            "kube-controller-manager": self.control_plane.start_controllers,
            "kube-scheduler": self.control_plane.start_scheduler,
            "kubelet": self.components.start_kubelet,
            "kube-proxy": self.components.start_proxy,
            "coredns": self.components.start_dns,
            "deviceplugin": self.components.start_device_plugin,
            "claims": self.components.start_claims,
            "netpol": self.components.start_network_policies,
        }

    @classmethod
    def of(cls, folder: Path) -> Cluster:
        """Return the cluster that runs in ``folder``; raises ClusterError where none does."""
        sandbox = Sandbox.of(folder)
        if sandbox is None:
            raise ClusterError(f"No cluster runs in {folder}. Start one: make cluster")
        return cls(sandbox)

    # --- life

    def boot(self) -> None:
        """Start every component in the node's namespaces, and wait until the cluster can be used."""
        self.gpus.make()
        self.start("containerd")
        self.control_plane.start()
        small = write_small_images(self.folder / "images")
        until(self._runtime_answers, "containerd", START_SECONDS, lambda: self._tails("containerd"))
        self.import_images(small)
        for name in ("kubelet", "kube-proxy", "coredns"):
            self.start(name)
        self.kubectl.apply(system_objects(self.numbers))
        for name in ("claims", "netpol", "deviceplugin"):
            self.start(name)
        until(self.node_ready, "the node", START_SECONDS, lambda: self._tails("kubelet", "containerd"))
        count = len(self.gpus.ids())
        until(
            lambda: self.allocatable_gpus() == count,
            f"{count} GPUs on the node",
            START_SECONDS,
            lambda: self._tails("deviceplugin", "kubelet"),
        )

    def start(self, name: str) -> None:
        """Start one component, e.g. after `kill`."""
        self._starters[name]()

    def kill(self, name: str) -> None:
        """End one component at once, as a crash does."""
        self.processes.kill(name)

    def restart(self, name: str) -> None:
        self.kill(name)
        self.start(name)

    def stop(self) -> None:
        """End everything and remove the cluster's folder."""
        self.sandbox.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _runtime_answers(self) -> bool:
        require_alive(self.processes, "containerd")
        with contextlib.suppress(ClusterError):
            self._ctr("version")
            return True
        return False

    # --- what is in it

    @property
    def kubeconfig(self) -> Path:
        return self.kubectl.kubeconfig

    @property
    def host_ip(self) -> str:
        """This machine's address, as pods reach it; and the address pods see when it calls them."""
        return self.numbers.host_ip

    @property
    def node_ip(self) -> str:
        return self.numbers.node_ip

    def node(self) -> dict[str, Any]:
        return self.kubectl.get("node", NODE) or {}

    def node_ready(self) -> bool:
        require_alive(self.processes, "kubelet")
        conditions = self.node().get("status", {}).get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def allocatable_gpus(self) -> int:
        return int(self.node().get("status", {}).get("allocatable", {}).get(RESOURCE, 0))

    def import_images(self, archives: list[Path]) -> None:
        """Put images from OCI archives where pods find them (``imagePullPolicy: IfNotPresent`` or Never)."""
        for archive in archives:
            self._ctr("images", "import", str(archive), seconds=IMPORT_SECONDS)

    def images(self) -> list[str]:
        return self._ctr("images", "ls", "-q").split()

    def _ctr(self, *words: str, seconds: float = 60.0) -> str:
        return self.sandbox.run("ctr", "-a", CONTAINERD_SOCKET, "-n", "k8s.io", *words, seconds=seconds)

    # --- using it

    def helm(self, *words: str, seconds: float = 300.0) -> str:
        """Run helm against this cluster; return what it printed, or raise with what it said."""
        done = subprocess.run(
            [str(program("helm")), *words],
            env=self.kubectl.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"helm {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run_in(self, namespace: str, pod: str, *command: str, container: str | None = None) -> str:
        """Run a command in a pod; return what it printed, or raise with what it said."""
        where = ["-c", container] if container else []
        return self.kubectl("exec", "-n", namespace, pod, *where, "--", *command)

    def wait_for(
        self,
        kind: str,
        name: str,
        namespace: str,
        true: Callable[[dict[str, Any]], Any],
        what: str,
        seconds: float = POD_SECONDS,
    ) -> dict[str, Any]:
        """Return an object once it exists and ``true(object)``; else fail with its namespace's story."""

        def look() -> dict[str, Any] | None:
            found = self.kubectl.get(kind, name, namespace)
            return found if found is not None and true(found) else None

        return until(look, f"{kind} {namespace}/{name} {what}", seconds, lambda: self.story(namespace))

    def wait_ready(self, namespace: str, pod: str, seconds: float = POD_SECONDS) -> dict[str, Any]:
        """Return a pod as soon as it is Ready."""
        return self.wait_for("pod", pod, namespace, is_ready, "Ready", seconds)

    def wait_ended(self, namespace: str, pod: str, seconds: float = POD_SECONDS) -> dict[str, Any]:
        """Return a pod as soon as its containers have ended, well or not."""
        ended = ("Succeeded", "Failed")
        return self.wait_for(
            "pod", pod, namespace, lambda one: one["status"].get("phase") in ended, "ended", seconds
        )

    @contextlib.contextmanager
    def namespace(self, name: str, labels: dict[str, str] | None = None) -> Iterator[str]:
        """A namespace that is removed, with all that is in it, when the block ends."""
        meta = {"name": name, "labels": labels or {}}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def story(self, namespace: str) -> str:
        """Return what a person would ask about a namespace: its pods, events, and the ends of their logs."""
        parts = [
            f"--- {namespace}: pods",
            self.kubectl.run("get", "pods", "-n", namespace, "-o", "wide").stdout,
            f"--- {namespace}: events",
            self.kubectl.run("get", "events", "-n", namespace, "--sort-by=.lastTimestamp").stdout,
        ]
        for pod in self.kubectl.run("get", "pods", "-n", namespace, "-o", "name").stdout.split():
            words = ["logs", "-n", namespace, pod, "--all-containers", "--prefix", "--tail=40"]
            said = self.kubectl.run(*words)
            parts += [f"--- {namespace}/{pod}: log", said.stdout or said.stderr]
        return "\n".join(parts)

    def _tails(self, *names: str) -> str:
        return "\n".join(tail(self.processes.log(name)) for name in names)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod says that it is Ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def start_cluster(folder: Path, *, lasting: bool = False, mounts: tuple[str, ...] = ()) -> Cluster:
    """Start a cluster with its files in ``folder``; it ends with this process unless it is ``lasting``."""
    require_machine()
    if Sandbox.of(folder) is not None:
        raise ClusterError(f"A cluster runs in {folder} already")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("kubectl", "etcd", "coredns"):
        program(name)  # built before anything is started
    begun = time.monotonic()
    numbers = take_numbers()
    names = [*API_NAMES, "localhost", "127.0.0.1", numbers.node_ip, numbers.api_ip]
    server = f"https://{numbers.node_ip}:6443"
    make_certificates(folder / "pki", server, names, NODE, numbers.node_ip)
    sandbox = Sandbox(folder, numbers)
    try:
        sandbox.start(lasting=lasting)
        cluster = Cluster(sandbox, mounts)
        cluster.boot()
    except BaseException:
        sandbox.stop()
        raise
    print(f"==> a cluster of its own in {folder}: ready after {time.monotonic() - begun:.1f} s", flush=True)
    return cluster


@contextlib.contextmanager
def running_cluster(folder: Path, mounts: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """A cluster that ends, with all it left, when the block does."""
    cluster = start_cluster(folder, mounts=mounts)
    try:
        yield cluster
    finally:
        cluster.stop()
