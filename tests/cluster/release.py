"""gpuhub on the test cluster: the chart installed for real, with what tests ask of it.

One release named gpuhub serves a whole test run (`gpuhub` in the tests' fixtures); a cluster that already
has it is upgraded, as a site would do it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.cluster import Cluster
from tests.cluster.gpus import ON_NODE
from tests.cluster.nvml.build import build
from tests.cluster.waiting import until

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm-values/gpuhub"
VALUES = ROOT / "helm-values/values/cluster-test.yaml"
NAME = RELEASE = "gpuhub"
USERS = "gpuhub-users"
PORT = 30080
INSTALL_SECONDS = 300.0
LIBRARY_ON_NODE = "/opt/gpuhub-nvml"
PARTS = ("hub", "broker", "proxy")


class Release:
    """The chart's one release in a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.kubectl = cluster, cluster.kubectl

    def install(self, values: dict[str, Any] | None = None) -> None:
        """Install it, or upgrade it to today's chart; returns when every part is ready."""
        library = build(self.cluster.folder / "nvml")
        agent = {
            "extraEnv": {"LD_LIBRARY_PATH": LIBRARY_ON_NODE},
            "extraVolumes": [
                {"name": "nvml", "hostPath": {"path": str(library.parent)}},
                {"name": "gpus", "hostPath": {"path": str(ON_NODE)}},
            ],
            "extraVolumeMounts": [
                {"name": "nvml", "mountPath": LIBRARY_ON_NODE, "readOnly": True},
                {"name": "gpus", "mountPath": str(ON_NODE)},
            ],
        }
        mine = self.cluster.folder / "values-agent.json"
        mine.write_text(json.dumps({"agent": agent}))
        more = self.cluster.folder / "values-test.json"
        more.write_text(json.dumps(values or {}))
        words = ["upgrade", NAME, str(CHART), "--install", "-n", RELEASE, "--create-namespace"]
        for file in (VALUES, mine, more):
            words += ["--values", str(file)]
        self.cluster.helm(*words, "--wait", "--timeout", f"{INSTALL_SECONDS:.0f}s")
        until(self.answers, "gpuhub's hub", INSTALL_SECONDS, lambda: self.cluster.story(RELEASE))

    def answers(self) -> bool:
        """Whether the hub answers through the proxy and the broker too."""
        headers = {"Authorization": f"token {self.secret('admin-token')}"}
        try:
            hub = httpx.get(f"{self.url}hub/api/users", headers=headers, timeout=5)
            broker = httpx.get(f"{self.url}services/gpu/ready", timeout=5)
        except httpx.HTTPError:
            return False
        return hub.status_code == 200 and broker.status_code == 200

    @property
    def url(self) -> str:
        return f"http://{self.cluster.node_ip}:{PORT}/"

    @property
    def admin_token(self) -> str:
        return self.secret("admin-token")

    def secret(self, key: str) -> str:
        found = self.kubectl.get("secret", "gpuhub", RELEASE)
        return base64.b64decode(found["data"][key]).decode() if found else ""

    # --- its pods

    def pod(self, part: str) -> str:
        """The name of the pod of hub, broker, proxy or agent."""
        pods = self.kubectl.list("pod", RELEASE, f"app.kubernetes.io/component={part}")
        alive = [one["metadata"]["name"] for one in pods if "deletionTimestamp" not in one["metadata"]]
        assert len(alive) == 1, (part, alive)
        return str(alive[0])

    def lose(self, part: str) -> None:
        """Delete a part's pod at once, as a lost node does; returns when there is another one, ready."""
        old = self.pod(part)
        self.kubectl("delete", "pod", old, "-n", RELEASE, "--grace-period=0", "--force")
        self.kubectl("rollout", "status", f"deploy/{part}", "-n", RELEASE, "--timeout=120s")
        until(self.answers, f"gpuhub after its {part} was lost", 120, lambda: self.cluster.story(RELEASE))

    def workers(self) -> list[str]:
        """Names of the worker pods."""
        pods = self.kubectl.list("pod", USERS, "component=gpuhub-worker")
        return [one["metadata"]["name"] for one in pods]
