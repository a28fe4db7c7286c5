"""The two images that every cluster has: what holds a pod open, and a shell for tests.

An OCI archive is three JSON documents and a tar, so these need neither a registry nor an image builder:
``localhost/pause:1`` (images/pause, linked statically) and ``localhost/probe:1`` (BusyBox as uid 1000, whose
shell, wget, nc and nslookup ask whether a pod runs, sees its GPU, reaches an address).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.cluster.build import ROOT
from tests.cluster.sandbox import BUSYBOX

PAUSE = "localhost/pause:1"
PROBE = "localhost/probe:1"
PASSWD = b"root:x:0:0::/:/bin/sh\nprobe:x:1000:1000::/:/bin/sh\n"


def write_small_images(folder: Path) -> list[Path]:
    """Write both archives into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "pause"
    source = ROOT / "images/pause/pause.c"
    subprocess.run(["gcc", "-static", "-Os", "-s", "-o", str(binary), str(source)], check=True)
    pause, probe = _Layer(), _Layer()
    pause.file("pause", binary.read_bytes(), 0o755)
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
        probe.folder(name, mode)
    probe.file("etc/passwd", PASSWD, 0o644)
    probe.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    applets = subprocess.check_output([BUSYBOX, "--list"], text=True).split()
    for name in sorted(set(applets) - {"busybox"}):
        probe.link(f"bin/{name}", "busybox")
    return [
        _archive(folder / "pause.tar", PAUSE, pause, {"User": "65535:65535", "Entrypoint": ["/pause"]}),
        _archive(
            folder / "probe.tar",
            PROBE,
            probe,
            {"User": "1000:1000", "Env": ["PATH=/bin"], "Cmd": ["sleep", "86400"]},
        ),
    ]


class _Layer:
    """One file system layer."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 - closed when it is read

    def folder(self, name: str, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def file(self, name: str, content: bytes, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        self._tar.addfile(info, io.BytesIO(content))

    def link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def read(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def _archive(path: Path, image: str, layer: _Layer, settings: dict[str, Any]) -> Path:
    """Write an OCI archive of one layer."""
    out, plain = _Layer(), layer.read()

    def keep(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        out.file(f"blobs/sha256/{digest}", content, 0o644)
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": keep(_json(config), "config.v1+json"),
        "layers": [keep(gzip.compress(plain, compresslevel=1, mtime=0), "layer.v1.tar+gzip")],
    }
    entry = keep(_json(manifest), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": image, "org.opencontainers.image.ref.name": image}
    out.file("index.json", _json({"schemaVersion": 2, "manifests": [entry]}), 0o644)
    out.file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}), 0o644)
    path.write_bytes(out.read())
    return path


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
