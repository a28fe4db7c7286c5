"""Enforces NetworkPolicies on the node, since no plugin that does can be had offline.

On every change of pods, namespaces or policies the whole nftables table is written anew, in one transaction:
no packet sees half of it. Semantics are those of networking.k8s.io/v1: a pod that any policy selects for a
direction may only do, in that direction, what some policy allows; answers always pass; the node itself
(probes) always reaches its pods. Not kept: a pod is open for some milliseconds until its address is known.

    python -m tests.cluster.netpol KUBECONFIG        # in the node's network namespace
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.kubeapi import Followed, KubeApi, matches

PODS = "/api/v1/pods"
NAMESPACES = "/api/v1/namespaces"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
TABLE = "gpuhub_netpol"
ENDED = ("Succeeded", "Failed")
BURST_SECONDS = 0.02
"""How long more changes are awaited before a write: a Deployment comes as a dozen."""


def ruleset(
    pods: list[dict[str, Any]], namespaces: list[dict[str, Any]], policies: list[dict[str, Any]]
) -> str:
    """Return the table, as ``nft -f`` takes it, that lets pass exactly what the policies allow."""
    return _Ruleset(pods, namespaces, policies).text()


class _Ruleset:
    def __init__(
        self, pods: list[dict[str, Any]], namespaces: list[dict[str, Any]], policies: list[dict[str, Any]]
    ) -> None:
        self.pods = [pod for pod in pods if _address(pod)]
        self.labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in namespaces}
        self.policies = policies

    def text(self) -> str:
        chains: list[str] = []
        jumps: dict[str, list[str]] = {"Ingress": [], "Egress": []}
        for pod in self.pods:
            for direction in jumps:
                chosen = [one for one in self.policies if self._selects(one, pod, direction)]
                if not chosen:
                    continue
                name = f"{direction.lower()}_{pod['metadata']['uid'].replace('-', '_')}"
                jumps[direction].append(f"{_address(pod)} : jump {name}")
                rules = [rule for one in chosen for rule in self._rules(one, pod, direction)]
                chains.append(_chain(name, [*rules, "counter drop"]))
        leaving = f"ip saddr vmap {{ {', '.join(jumps['Egress'])} }}" if jumps["Egress"] else ""
        coming = f"ip daddr vmap {{ {', '.join(jumps['Ingress'])} }}" if jumps["Ingress"] else ""
        answers = "ct state established,related accept"
        forward = "type filter hook forward priority -5; policy accept;"
        # To the node itself: the API server, DNS.
        to_node = "type filter hook input priority -5; policy accept;"
        chains += [_chain("np_forward", [forward, answers, leaving, coming])]
        chains += [_chain("np_input", [to_node, answers, leaving])]
        body = "\n".join(chains)
        return f"add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}\n}}\n"

    def _selects(self, policy: dict[str, Any], pod: dict[str, Any], direction: str) -> bool:
        spec = policy["spec"]
        # The API server fills policyTypes in.
        return (
            policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and direction in spec.get("policyTypes", [])
            and matches(spec.get("podSelector", {}), pod["metadata"].get("labels"))
        )

    def _rules(self, policy: dict[str, Any], pod: dict[str, Any], direction: str) -> Iterator[str]:
        incoming = direction == "Ingress"
        for rule in policy["spec"].get(direction.lower()) or []:
            peers, ports = rule.get("from" if incoming else "to"), rule.get("ports")
            side = "ip saddr" if incoming else "ip daddr"
            if not peers:
                yield from self._ports("", ports, [pod] if incoming else self.pods, side, narrow=not incoming)
            for peer in peers or []:
                if "ipBlock" in peer:
                    block = peer["ipBlock"]
                    if ":" in block["cidr"]:
                        continue  # this cluster speaks IPv4 only, and so does the table
                    match = f"{side} {block['cidr']}"
                    if block.get("except"):
                        match += f" {side} != {{ {', '.join(block['except'])} }}"
                    yield from self._ports(match, ports, [pod] if incoming else [], side, narrow=False)
                else:
                    others = self._peers(peer, policy["metadata"]["namespace"])
                    if others:
                        match = f"{side} {{ {', '.join(_address(one) for one in others)} }}"
                        yield from self._ports(
                            match, ports, [pod] if incoming else others, side, narrow=not incoming
                        )

    def _peers(self, peer: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
        found = []
        for pod in self.pods:
            own = pod["metadata"]["namespace"]
            if "namespaceSelector" in peer:
                in_namespace = matches(peer["namespaceSelector"], self.labels.get(own))
            else:
                in_namespace = own == namespace
            if in_namespace and matches(peer.get("podSelector", {}), pod["metadata"].get("labels")):
                found.append(pod)
        return found

    @staticmethod
    def _ports(
        match: str,
        ports: list[dict[str, Any]] | None,
        targets: list[dict[str, Any]],
        side: str,
        *,
        narrow: bool,
    ) -> Iterator[str]:
        """Yield a rule per port; a named one is looked up in the pods that are reached (``targets``)."""
        if not ports:
            yield f"{match} return".strip()
        for entry in ports or []:
            protocol = entry.get("protocol", "TCP").lower()
            port = entry.get("port")
            if port is None:
                yield f"{match} meta l4proto {protocol} return".strip()
            elif isinstance(port, int):
                last = entry.get("endPort")
                yield f"{match} {protocol} dport {f'{port}-{last}' if last else port} return".strip()
            else:
                for target in targets:
                    for number in _named(target, port, entry.get("protocol", "TCP")):
                        where = f"{side} {_address(target)}" if narrow else match
                        yield f"{where} {protocol} dport {number} return".strip()


def _chain(name: str, lines: list[str]) -> str:
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in lines if line), "  }"])


def _address(pod: dict[str, Any]) -> str:
    """Return a pod's own address; "" where it has none, or none of its own."""
    status = pod.get("status", {})
    if pod["spec"].get("hostNetwork") or status.get("phase") in ENDED:
        return ""
    return str(status.get("podIP") or "")


def _named(pod: dict[str, Any], name: str, protocol: str) -> list[int]:
    return [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("name") == name and port.get("protocol", "TCP") == protocol
    ]


def main(kubeconfig: Path) -> None:
    """Follow the cluster, for ever."""
    followed = Followed(KubeApi(kubeconfig), PODS, NAMESPACES, POLICIES)
    written = ""
    while True:
        followed.wait()
        followed.changed.wait(BURST_SECONDS)
        text = ruleset(followed.all(PODS), followed.all(NAMESPACES), followed.all(POLICIES))
        if text == written:
            continue
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"nft: {done.stderr}\n{text}", flush=True)
        else:
            written = text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
