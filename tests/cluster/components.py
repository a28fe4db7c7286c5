"""What a node runs beside the control plane: its settings files and its command lines.

Every setting that is not a default has its reason here; facts about this machine (no CAP_SYS_RESOURCE,
control groups of version 1) are in `containerd_settings` and `kubelet_settings`.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import gpus
from tests.cluster.addresses import NODE, Numbers
from tests.cluster.build import program
from tests.cluster.certificates import Certificates
from tests.cluster.controlplane import flags
from tests.cluster.processes import Processes, environment
from tests.cluster.smallimages import PAUSE

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Components:
    """Starts the node's programs, each by its name."""

    folder: Path
    numbers: Numbers
    certificates: Certificates
    processes: Processes
    mounts: tuple[str, ...] = ()
    """``HOST:CONTAINER`` folders or files that every container with a GPU gets, read-only."""

    def start_containerd(self) -> None:
        networks = self.folder / "cni"
        networks.mkdir(exist_ok=True)
        (networks / "10-gpuhub.conflist").write_text(json.dumps(network_settings(self.numbers.pods)))
        settings = self.folder / "containerd.toml"
        settings.write_text(containerd_settings(self.folder / "containerd", networks))
        path = shutil.which("containerd", path=environment()["PATH"])
        self.processes.start("containerd", [str(path), "--config", str(settings)])

    def start_kubelet(self) -> None:
        settings = self.folder / "kubelet.json"
        settings.write_text(json.dumps(kubelet_settings(self.folder, self.numbers, self.certificates)))
        options = {
            "config": settings,
            "kubeconfig": self.certificates("node.kubeconfig"),
            "hostname_override": NODE,
            "node_ip": self.numbers.node_ip,
            "root_dir": "/var/lib/kubelet",
            "cert_dir": self.certificates("kubelet"),
            "node_labels": ",".join(f"{key}={value}" for key, value in gpus.LABELS.items()),
        }
        self.processes.start("kubelet", [str(program("kubelet")), *flags(options)])

    def start_proxy(self) -> None:
        settings = self.folder / "proxy.json"
        settings.write_text(json.dumps(proxy_settings(self.numbers, self.certificates)))
        self.processes.start("kube-proxy", [str(program("kube-proxy")), f"--config={settings}"])

    def start_dns(self) -> None:
        settings = self.folder / "Corefile"
        settings.write_text(dns_settings(self.numbers, self.certificates))
        self.processes.start("coredns", [str(program("coredns")), "-conf", str(settings)])

    def start_device_plugin(self) -> None:
        mounts = [word for mount in self.mounts for word in ("--mount", mount)]
        self._start_ours("deviceplugin", *mounts)

    def start_claims(self) -> None:
        self._start_ours("claims", self.certificates("claims.kubeconfig"), str(self.folder / "claims"))

    def start_network_policies(self) -> None:
        self._start_ours("netpol", self.certificates("netpol.kubeconfig"))

    def _start_ours(self, name: str, *words: str) -> None:
        # Started in the repository's root, which -m puts on the path.
        self.processes.start(name, [sys.executable, "-u", "-m", f"tests.cluster.{name}", *words])


def network_settings(pods: str) -> dict[str, Any]:
    """Return the pods' network: one bridge, addresses of this node's range, nothing hidden behind NAT."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "gpuhub", "plugins": [bridge, ports]}


def containerd_settings(root: Path, networks: Path) -> str:
    """Return containerd's settings (its format of version 2: containerd 1.6 and 1.7).

    Root here may lack CAP_SYS_RESOURCE, so nothing may lower an oom_score_adj: without
    ``restrict_oom_score_adj`` no pod starts. AppArmor and the hugetlb hierarchy are not there.
    """
    runc = shutil.which("runc", path=environment()["PATH"])
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[{cri}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{runc}"
[{cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{networks}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
"""


def kubelet_settings(folder: Path, numbers: Numbers, certificates: Certificates) -> dict[str, Any]:
    """Return the kubelet's settings."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": certificates("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificates("kubelet-server.crt"),
        "tlsPrivateKeyFile": certificates("kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{numbers.group}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [numbers.dns_ip],
        "resolvConf": str(folder / "resolv.conf"),
        "serializeImagePulls": False,
        # What was imported cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A test machine may be nearly full and is no reason to evict.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "maxPods": 200,
        # Also how late a GPU that came or went shows.
        "nodeStatusUpdateFrequency": "2s",
        # Secrets reach a pod's files within this.
        "syncFrequency": "10s",
    }


def proxy_settings(numbers: Numbers, certificates: Certificates) -> dict[str, Any]:
    """Return kube-proxy's settings; the zeros are sysctls that a network namespace may not write."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": certificates("proxy.kubeconfig")},
        "clusterCIDR": numbers.pods,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }


def dns_settings(numbers: Numbers, certificates: Certificates) -> str:
    """Return CoreDNS' settings. Names outside the cluster do not exist, and say so at once."""
    return f"""{DOMAIN}:53 in-addr.arpa:53 {{
    bind {numbers.node_ip}
    errors
    ready 127.0.0.1:8181
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {certificates("dns.kubeconfig")}
        ttl 5
    }}
    cache 5
    loadbalance
}}
.:53 {{
    bind {numbers.node_ip}
    hosts {{
        {numbers.node_ip} {NODE}
        fallthrough
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
