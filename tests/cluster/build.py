"""Builds Kubernetes and what surrounds it from Go modules, once per version.

Exists because a test machine has a module proxy but no container registry and no package of a current
Kubernetes. Each folder of ``tools/`` is a Go module of ours that names one upstream version; nothing of
upstream is kept in this repository. A tool's programs lie in ``.cache/cluster/bin-<checksum>``, named by all
that they are made of, so an unchanged tool is never built again, and a changed one never mistaken for it.
``.cache/cluster/bin`` links to the programs built last, for people.

    python -m tests.cluster.build                # all; or: kubernetes etcd coredns helm kustomize kwok

Several may call this at once (make's lanes do): a file lock lets one build and the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.waiting import ClusterError

ROOT = Path(__file__).parents[2]
TOOLS = Path(__file__).parent / "tools"
CACHE = ROOT / ".cache/cluster"
KEPT = 2
"""How many builds of one tool stay: a cluster may still run from the one before."""

KUBERNETES = "1.37.2"
HELM = "4.2.4"
KUSTOMIZE = "5.8.1"


@dataclass(frozen=True)
class Tool:
    """One module below ``tools/``: the packages to build, by the program's name, and link-time variables."""

    packages: dict[str, str]
    variables: dict[str, str]


def _kubernetes() -> Tool:
    version = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    names = (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    )
    return Tool(
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in names},
        {
            # Without these a client refuses to speak of its version: v0.0.0-master.
            f"{version}.gitVersion": f"v{KUBERNETES}",
            f"{version}.gitMajor": major,
            f"{version}.gitMinor": minor,
            f"{version}.gitTreeState": "clean",
        },
    )


BUILDS: dict[str, Tool] = {
    "etcd": Tool({"etcd": "go.etcd.io/etcd/server/v3"}, {}),
    "kubernetes": _kubernetes(),
    "coredns": Tool({"coredns": "."}, {}),
    "helm": Tool(
        {"helm": "helm.sh/helm/v4/cmd/helm"}, {"helm.sh/helm/v4/internal/version.version": f"v{HELM}"}
    ),
    "kustomize": Tool(
        {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        {"sigs.k8s.io/kustomize/api/provenance.version": f"v{KUSTOMIZE}"},
    ),
    "kwok": Tool({"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, {}),
}


def program(name: str) -> Path:
    """Return the path of a program, built before or now."""
    for tool, recipe in BUILDS.items():
        if name in recipe.packages:
            return build(tool) / name
    raise KeyError(name)


def build(tool: str) -> Path:
    """Return the folder of a tool's programs; builds them where they are not there yet."""
    folder = CACHE / f"bin-{tool}-{_checksum(tool)}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / f".build-{tool}.lock"):
        if not folder.exists():
            _compile(tool, folder)
            _forget_old(tool)
            _link(folder)
    return folder


def _compile(tool: str, folder: Path) -> None:
    begun = time.monotonic()
    print(f"==> building {tool} (kept in {folder.relative_to(ROOT)})", flush=True)
    recipe = BUILDS[tool]
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in recipe.variables.items())])
    new = Path(tempfile.mkdtemp(prefix=f".{tool}-", dir=CACHE))
    # One program may have another name than its package; several are built side by side under their own.
    outputs = [str(new / name) for name in recipe.packages] if len(recipe.packages) == 1 else [f"{new}/"]
    command = ["nice", go(), "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", *outputs]
    done = subprocess.run(
        [*command, *recipe.packages.values()],
        cwd=TOOLS / tool,
        # readonly: what is built is what go.mod and go.sum say, or nothing.
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(new)
        raise ClusterError(f"{tool} was not built. Is the Go module proxy there?\n{done.stderr[-4000:]}")
    new.chmod(0o755)
    new.rename(folder)
    print(f"==> {tool}: built in {time.monotonic() - begun:.0f} s", flush=True)


def _checksum(tool: str) -> str:
    """Name all that a tool's programs are made of."""
    digest = hashlib.sha256(repr((BUILDS[tool], _go_version())).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        path = TOOLS / tool / name
        if path.exists():
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def go() -> str:
    """Return the path of the Go command."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise ClusterError("The test cluster is built with Go, which is not here. Install Go 1.26 or newer.")
    return found


@functools.cache
def _go_version() -> str:
    return subprocess.run(
        [go(), "env", "GOVERSION"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _forget_old(tool: str) -> None:
    builds = sorted(CACHE.glob(f"bin-{tool}-*"), key=lambda path: path.stat().st_mtime)
    for old in builds[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _link(folder: Path) -> None:
    links = CACHE / "bin"
    links.mkdir(exist_ok=True)
    for path in folder.iterdir():
        link = links / path.name
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(Path("..") / folder.name / path.name)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(names: list[str]) -> int:
    """Build the tools that are named, or all."""
    unknown = sorted(set(names) - set(BUILDS))
    if unknown:
        print(f"There is no tool {unknown[0]}. There are: {', '.join(BUILDS)}", file=sys.stderr)
        return 2
    try:
        for name in names or BUILDS:
            build(name)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The cluster's programs are in {CACHE / 'bin'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
