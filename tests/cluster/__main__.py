"""A cluster for people: `make cluster` starts one that stays, `make cluster-down` ends it.

python -m tests.cluster up | down | status | import ARCHIVE...
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.build import CACHE
from tests.cluster.cluster import Cluster, start_cluster
from tests.cluster.sandbox import Sandbox
from tests.cluster.waiting import ClusterError

FOLDER = CACHE / "run"
ADVICE = """A Kubernetes cluster runs here. It stays until: make cluster-down
  export KUBECONFIG={kubeconfig}
  export PATH={bin}:$PATH               # kubectl, helm, kustomize
  kubectl get nodes,pods -A
images:  python -m tests.cluster import ARCHIVE.tar ...      (imagePullPolicy: IfNotPresent)
logs:    {folder}/log/*.log
addresses: pods see this machine as {host_ip}; pods and Services can be reached from here by their own"""


def up() -> None:
    """Start the cluster, unless it runs; say how to use it."""
    try:
        cluster = Cluster.of(FOLDER)
    except ClusterError:
        cluster = start_cluster(FOLDER, lasting=True)
    print(
        ADVICE.format(
            kubeconfig=cluster.kubeconfig, bin=CACHE / "bin", folder=cluster.folder, host_ip=cluster.host_ip
        )
    )


def down() -> None:
    """End the cluster."""
    if Sandbox.of(FOLDER) is None:
        print("No cluster runs")
        return
    Cluster.of(FOLDER).stop()
    print("The cluster has ended")


def status() -> None:
    """Say which components run."""
    cluster = Cluster.of(FOLDER)
    print(cluster.kubectl("get", "nodes", "-o", "wide"))
    print("\n".join(cluster.images()))


def main(words: list[str]) -> int:
    """Do what the first word says."""
    actions = {"up": up, "down": down, "status": status}
    try:
        if words[:1] == ["import"] and len(words) > 1:
            Cluster.of(FOLDER).import_images([Path(word).resolve() for word in words[1:]])
        elif len(words) == 1 and words[0] in actions:
            actions[words[0]]()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
