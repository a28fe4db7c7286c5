"""The control plane: etcd, API server, controllers, scheduler. On a node, or bare.

Bare (`running_control_plane`) it needs no root and no namespaces, listens on 127.0.0.1 alone and is ready
in seconds: enough for roles, quotas, admission policies, and fake nodes by the thousand (kwok).
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.build import program
from tests.cluster.certificates import Certificates, make_certificates
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import LocalProcesses, Processes, require_alive
from tests.cluster.waiting import tail, until

START_SECONDS = 120.0
BARE_SERVICES = "10.214.255.0/24"
BARE_PODS = "10.213.255.0/24"
API_NAMES = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
]


@dataclass(frozen=True)
class Place:
    """Where a control plane listens. ``address`` is the API server's, for everybody."""

    folder: Path
    address: str
    services: str
    pods: str
    api_port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    bare: bool = False

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api_port}"


class ControlPlane:
    """Starts the four programs, and can end and start each again."""

    def __init__(self, place: Place, processes: Processes, certificates: Certificates) -> None:
        self.place, self.processes, self.certificates = place, processes, certificates
        self.kubectl = Kubectl(certificates.kubeconfig)

    def start(self) -> None:
        """Return when the API server says that it is ready."""
        self.start_etcd()
        self.start_api_server()
        self.start_controllers()
        self.start_scheduler()

    def start_etcd(self) -> None:
        place = self.place
        client, peer = f"http://127.0.0.1:{place.etcd_port}", f"http://127.0.0.1:{place.etcd_peer_port}"
        self._start(
            "etcd",
            data_dir=place.folder / "etcd/data",
            listen_client_urls=client,
            advertise_client_urls=client,
            listen_peer_urls=peer,
            initial_advertise_peer_urls=peer,
            initial_cluster=f"default={peer}",
            unsafe_no_fsync=True,  # nobody needs this cluster after the machine lost its power
            log_level="warn",
        )

    def start_api_server(self) -> None:
        place, file = self.place, self.certificates
        self._start(
            "kube-apiserver",
            etcd_servers=f"http://127.0.0.1:{place.etcd_port}",
            secure_port=place.api_port,
            bind_address="127.0.0.1" if place.bare else "0.0.0.0",
            # A loopback address may not be advertised; bare, nobody follows what is.
            advertise_address="10.215.255.2" if place.bare else place.address,
            service_cluster_ip_range=place.services,
            authorization_mode="Node,RBAC",
            enable_admission_plugins="NodeRestriction",
            allow_privileged=True,
            client_ca_file=file("ca.crt"),
            tls_cert_file=file("apiserver.crt"),
            tls_private_key_file=file("apiserver.key"),
            service_account_issuer="https://kubernetes.default.svc",
            service_account_key_file=file("sa.pub"),
            service_account_signing_key_file=file("sa.key"),
            kubelet_client_certificate=file("apiserver-kubelet.crt"),
            kubelet_client_key=file("apiserver-kubelet.key"),
            kubelet_certificate_authority=file("ca.crt"),
            kubelet_preferred_address_types="InternalIP,Hostname",
            profiling=False,
        )
        until(self._answers, "the API server", START_SECONDS, self._evidence)

    def start_controllers(self) -> None:
        file = self.certificates
        self._start(
            "kube-controller-manager",
            **self._client("kcm"),
            use_service_account_credentials=True,
            service_account_private_key_file=file("sa.key"),
            root_ca_file=file("ca.crt"),
            cluster_signing_cert_file=file("ca.crt"),
            cluster_signing_key_file=file("ca.key"),
            cluster_cidr=self.place.pods,
            allocate_node_cidrs=False,
        )

    def start_scheduler(self) -> None:
        self._start("kube-scheduler", **self._client("scheduler"))

    def _client(self, name: str) -> dict[str, Any]:
        kubeconfig = self.certificates(f"{name}.kubeconfig")
        options: dict[str, Any] = {
            "kubeconfig": kubeconfig,
            "authentication_kubeconfig": kubeconfig,
            "authorization_kubeconfig": kubeconfig,
            "bind_address": "127.0.0.1",
            "leader_elect": False,
            # With the defaults (20, 30) a thousand pods take minutes.
            "kube_api_qps": 300,
            "kube_api_burst": 500,
        }
        if self.place.bare:
            options["secure_port"] = 0
        return options

    def _start(self, name: str, **options: Any) -> None:
        self.processes.start(name, [str(program(name)), *flags(options)])

    def _answers(self) -> bool:
        for name in ("etcd", "kube-apiserver"):
            require_alive(self.processes, name)
        return self.kubectl.says("get", "--raw", "/readyz") == "ok"

    def _evidence(self) -> str:
        return "\n".join(tail(self.processes.log(name)) for name in ("etcd", "kube-apiserver"))


def flags(options: dict[str, Any]) -> list[str]:
    """Turn ``some_name=value`` into ``--some-name=value``."""
    return [
        f"--{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in options.items()
    ]


@contextlib.contextmanager
def running_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A bare control plane with its files in ``folder``; ends, and removes them, with the block."""
    api, etcd, peer = _free_ports(3)
    place = Place(folder, "127.0.0.1", BARE_SERVICES, BARE_PODS, api, etcd, peer, bare=True)
    certificates = make_certificates(
        folder / "pki", place.server, [*API_NAMES, "localhost", "127.0.0.1", "10.214.255.1"]
    )
    processes = LocalProcesses(folder / "log")
    try:
        plane = ControlPlane(place, processes, certificates)
        plane.start()
        yield plane
    finally:
        processes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
