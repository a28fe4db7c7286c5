"""Builds images without a container registry: Debian packages become the base, buildah does the rest.

Exists because tests (and sites without a registry at hand) have nothing to pull from. Promises: nothing is
left on this machine outside ``cache`` (buildah's store, caches and locks live in a mount namespace of each
call), and nothing of this machine's package configuration is left in an image (it is handed over as build
secrets: never in a layer, never in the history).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from context import EPOCH, CannotBuild, call, digest

DEBIAN = "docker.io/library/debian:bookworm-slim"
MIRROR = "http://deb.debian.org"
SUITES = ("debian bookworm", "debian bookworm-updates", "debian-security bookworm-security")
TOOLS = "On Debian, as root: apt-get install buildah skopeo zstd mmdebstrap"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
LEFT_OUT = ("man", "info", "locale", "doc")
INDEX_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy")

# Everything that buildah would write elsewhere goes into memory, and away with the namespace.
INSIDE = """
mount -t tmpfs none "$1"
mkdir "$1/etc" "$1/work"
mount -t overlay none -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
mount -t tmpfs none /var/lib
shift
exec "$@"
"""


class Offline:
    """A store of images below ``cache``, and what builds in it."""

    def __init__(self, cache: Path) -> None:
        if os.geteuid() != 0:
            raise CannotBuild("Building images offline needs root. With Docker: see images/README.md")
        self.cache = cache
        self.run_root = cache / "run"
        for folder in (self.run_root, cache / "tmp", cache / "store"):
            folder.mkdir(parents=True, exist_ok=True)
        store = f'[storage]\ndriver = "overlay"\nrunroot = "{self.run_root}"\ngraphroot = "{cache}/store"\n'
        (cache / "storage.conf").write_text(store)
        (cache / "registries.conf").write_text("unqualified-search-registries = []\n")
        (cache / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')

    def buildah(self, *arguments: str) -> None:
        self.run("buildah", *arguments)

    def run(self, *command: str) -> None:
        """Run what works on the store, out of the machine's sight. Raises `CannotBuild`."""
        env = {
            "CONTAINERS_STORAGE_CONF": str(self.cache / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.cache / "registries.conf"),
            "TMPDIR": str(self.cache / "tmp"),
            "BUILDAH_ISOLATION": "chroot",
        }
        inside = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            INSIDE,
            "sh",
            str(self.run_root),
        ]
        call([*inside, *command], env=env, hint=TOOLS, shown=" ".join(command))

    def debian(self, *, refresh: bool) -> str:
        """Put Debian into the store where it is not; return a digest that names its content."""
        folder = self.cache / "debian"
        stamp = folder / "digest"
        options = ["--variant=minbase", "--mode=root", "--quiet", "--include=ca-certificates"]
        options += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in LEFT_OUT]
        options += [
            '--aptopt=APT::Install-Recommends "false"',
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        ]
        # What mmdebstrap copies from this machine, and logs and caches with the time of day in them.
        gone = "etc/resolv.conf etc/hostname var/cache/ldconfig/aux-cache var/log/* var/cache/debconf/*-old"
        options += [f'--customize-hook=cd "$1" && rm -rf {gone}']
        sources = [f"deb {MIRROR}/{suite} main" for suite in SUITES]
        recipe = digest([*options, *sources])
        if not refresh and stamp.exists() and stamp.read_text().startswith(f"{recipe} "):
            return stamp.read_text().partition(" ")[2]
        say("Debian from its packages")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        command = ["mmdebstrap", *options, "bookworm", str(folder / "debian.tar"), *sources]
        call(command, env={"SOURCE_DATE_EPOCH": EPOCH}, hint=TOOLS)
        content = digest([folder / "debian.tar"])
        (folder / "Dockerfile").write_text('FROM scratch\nADD debian.tar /\nCMD ["bash"]\n')
        self.buildah("bud", "-q", "--layers", "--timestamp", EPOCH, "-t", DEBIAN, str(folder))
        (folder / "debian.tar").unlink()
        stamp.write_text(f"{recipe} {content}")
        return content

    def build(self, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        with self._secrets() as secrets:
            options = [
                "--layers",
                "--format",
                "oci",
                "--pull=never",
                "--network",
                "host",
                "--timestamp",
                EPOCH,
            ]
            options += [f"--secret=id={name},src={path}" for name, path in secrets.items()]
            options += [f"--build-arg={key}={value}" for key, value in arguments.items()]
            self.buildah("bud", "-q", *options, "-t", tag, str(context))

    def export(self, tag: str, archive: Path) -> None:
        """Write the image as an OCI archive, its layers in zstd.

        Layers that an earlier export of the same image had are neither read nor packed again: buildah's own
        push packs all of them each time, which takes most of a rebuild.
        """
        layout = self.cache / "layouts" / archive.name.rpartition("-")[0]
        packed = layout / "packed"
        packed.mkdir(parents=True, exist_ok=True)
        (layout / "index.json").unlink(missing_ok=True)
        self.run(
            "skopeo",
            "copy",
            "-q",
            "--dest-oci-accept-uncompressed-layers",
            f"containers-storage:{tag}",
            f"oci:{layout}:{tag}",
        )
        blobs = layout / "blobs/sha256"
        index = json.loads((layout / "index.json").read_text())
        (entry,) = index["manifests"]
        manifest = json.loads((blobs / bare(entry["digest"])).read_text())
        plain = {bare(entry["digest"]), bare(manifest["config"]["digest"])}
        files = {name: blobs / name for name in (bare(manifest["config"]["digest"]),)}
        layers = set()
        for layer in manifest["layers"]:
            plain.add(bare(layer["digest"]))
            zipped = packed / bare(layer["digest"])
            layers.add(zipped.name)
            if not zipped.exists():
                call(["zstd", "-q", "-f", "-T0", str(blobs / zipped.name), "-o", f"{zipped}.new"], hint=TOOLS)
                Path(f"{zipped}.new").rename(zipped)
            name = sha256(zipped)
            layer.update(mediaType=ZSTD, digest=f"sha256:{name}", size=zipped.stat().st_size)
            files[name] = zipped
        for folder, wanted in ((blobs, plain), (packed, layers)):
            for old in folder.iterdir():
                if old.name not in wanted:
                    old.unlink()
        written = json.dumps(manifest).encode()
        entry.update(digest=f"sha256:{hashlib.sha256(written).hexdigest()}", size=len(written))
        texts = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
        texts[f"blobs/sha256/{bare(entry['digest'])}"] = written
        aside = archive.with_suffix(".new")
        with tarfile.open(aside, "w", format=tarfile.GNU_FORMAT) as content:
            for name, text in texts.items():
                content.addfile(member(name, len(text)), io.BytesIO(text))
            for name, path in sorted(files.items()):
                with path.open("rb") as blob:
                    content.addfile(member(f"blobs/sha256/{name}", path.stat().st_size), blob)
        aside.rename(archive)

    def smoke(self, name: str, tag: str, script: Path) -> None:
        """Run ``script`` in a container of the image, as root and as the image's own user."""
        container = f"smoke-{os.getpid()}"
        self.buildah("from", "-q", "--pull-never", "--name", container, tag)
        given = ["--network", "host", f"--volume={script}:/run/smoke.py:ro"]
        python = ["/opt/gpuhub/bin/python", "-P", "/run/smoke.py"]
        try:
            self.buildah("run", *given, "--user", "0:0", container, "--", *python, "root")
            self.buildah("run", *given, container, "--", *python, name)
        finally:
            self.buildah("rm", container)

    @contextlib.contextmanager
    def _secrets(self) -> Iterator[dict[str, Path]]:
        """This machine's way to the package registries, as files for one build."""
        folder = Path(tempfile.mkdtemp(dir=self.cache / "tmp"))
        try:
            listed = _output(sys.executable, "-m", "pip", "config", "list").splitlines()
            known = dict(line.split("=", 1) for line in listed if "=" in line)
            pip = ["[global]", "cert = /run/secrets/ca.crt"]
            for key, value in known.items():
                if key.rpartition(".")[2] in INDEX_KEYS:
                    pip.append(f"{key.rpartition('.')[2]} = {value.strip(chr(39))}")
            npm = ["cafile=/run/secrets/ca.crt"]
            if registry := _output("npm", "config", "get", "registry").strip():
                npm.append(f"registry={registry}")
            bundle = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
            shutil.copy(bundle, folder / "ca")
            (folder / "pip").write_text("\n".join(pip) + "\n")
            (folder / "npm").write_text("\n".join(npm) + "\n")
            yield {name: folder / name for name in ("ca", "pip", "npm")}
        finally:
            shutil.rmtree(folder)


def bare(digest: str) -> str:
    return digest.partition(":")[2]


def sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def member(name: str, size: int) -> tarfile.TarInfo:
    """Return a header that is the same whoever builds, and whenever."""
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, int(EPOCH), 0o644
    return header


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)
