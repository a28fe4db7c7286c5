"""Makes volumes for claims: the StorageClass ``local``, folders of the node.

For each claim of the class a folder and a PersistentVolume bound to it; both go when the claim does. Every
access mode is granted, ReadWriteMany too, which is honest on one node: many pods share the folder.
``fsGroup`` is honoured by the kubelet. Not kept: sizes are not enforced.

    python -m tests.cluster.claims KUBECONFIG FOLDER         # on the node
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.addresses import NODE
from tests.cluster.kubeapi import Followed, KubeApi

CLASS = "local"
PROVISIONER = "gpuhub.test/local"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
ASKED = "volume.kubernetes.io/storage-provisioner"
MADE = "pv.kubernetes.io/provisioned-by"


def storage_class() -> dict[str, Any]:
    """Return the cluster's default class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


class Provisioner:
    """Puts the volumes right, whenever called."""

    def __init__(self, api: KubeApi, folder: Path) -> None:
        self._api, self._folder = api, folder

    def make(self, claims: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> None:
        """Make what claims lack, remove what no claim holds any more."""
        there = {volume["metadata"]["name"] for volume in volumes}
        for claim in claims:
            meta = claim["metadata"]
            ours = (meta.get("annotations") or {}).get(ASKED) == PROVISIONER
            name = f"pvc-{meta['uid']}"
            wanted = not claim["spec"].get("volumeName") and "deletionTimestamp" not in meta
            if ours and wanted and name not in there:
                folder = self._folder / name
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)
                self._api.send("POST", VOLUMES, volume_for(claim, name, folder))
                print(f"{meta['namespace']}/{meta['name']}: {folder}", flush=True)
        for volume in volumes:
            meta = volume["metadata"]
            ours = (meta.get("annotations") or {}).get(MADE) == PROVISIONER
            if ours and volume.get("status", {}).get("phase") == "Released":
                shutil.rmtree(self._folder / meta["name"], ignore_errors=True)
                self._api.send("DELETE", f"{VOLUMES}/{meta['name']}")
                print(f"{meta['name']}: removed", flush=True)


def volume_for(claim: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Return the PersistentVolume for a claim: on this node, and for this claim only."""
    meta, spec = claim["metadata"], claim["spec"]
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    reference = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {MADE: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": reference,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }


def main(kubeconfig: Path, folder: Path) -> None:
    """Follow the cluster, for ever."""
    api = KubeApi(kubeconfig)
    followed = Followed(api, CLAIMS, VOLUMES)
    provisioner = Provisioner(api, folder)
    while True:
        followed.wait()
        try:
            provisioner.make(followed.all(CLAIMS), followed.all(VOLUMES))
        except httpx.HTTPError as error:
            print(f"{error}: tried again", flush=True)
            followed.changed.wait(1)
            followed.changed.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
