"""Builds gpuhub's images without a registry, or writes the folder that Docker builds them from.

    python images/build.py hub base                  # OCI archives; prints their paths
    python images/build.py base --smoke              # and tries the image
    python images/build.py base --context build/base # only the folder, for: docker build build/base

An archive is named by the checksum of all that goes into it, and an unchanged one is not built again.
Run it with the Python of .venv. Each image's tag is ``localhost/gpuhub-NAME:dev``.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from pathlib import Path

import context
from context import IMAGES, NAMES, RECIPES, ROOT, CannotBuild, digest
from offline import Offline, say

CACHE = ROOT / ".cache/cluster/images"
KEPT = 3
"""How many archives of one image stay: somebody may be reading the one before the newest."""


def tag(name: str) -> str:
    return f"localhost/gpuhub-{name}:dev"


class Builder:
    """Builds images and what they stand on, each once."""

    def __init__(self, archives: Path, arguments: dict[str, str], *, refresh: bool) -> None:
        self.archives, self.arguments = archives, arguments
        self.offline = Offline(CACHE / "work")
        self.refresh = refresh
        self._checksums: dict[str, str] = {}

    def checksum(self, name: str) -> str:
        """Return what names the archive; makes the context on the way."""
        if name not in self._checksums:
            folder = self._context(name)
            context.write(name, folder, CACHE / "work")
            self._checksums[name] = digest([folder, self._below(name), repr(sorted(self.arguments.items()))])
        return self._checksums[name]

    def archive(self, name: str) -> Path:
        """Build the image if it is not there, and return its archive."""
        path = self.archives / f"{name}-{self.checksum(name)}.tar"
        if path.exists():
            return path
        self._build(name)
        say(f"{name}: writing {path.name}")
        self.archives.mkdir(parents=True, exist_ok=True)
        self.offline.export(tag(name), path)
        others = sorted(self.archives.glob(f"{name}-*.tar"), key=lambda one: one.stat().st_mtime)
        for old in others[:-KEPT]:
            old.unlink()
        return path

    def smoke(self, name: str) -> None:
        """Try the image from inside. Raises `CannotBuild` where it fails."""
        self._build(name)
        say(f"{name}: trying it")
        self.offline.smoke(name, tag(name), IMAGES / "smoke.py")

    def _build(self, name: str) -> None:
        self.checksum(name)
        if name in RECIPES:
            self._build("base")
        begun = time.monotonic()
        self.offline.build(self._context(name), tag(name), self.arguments)
        say(f"{name}: built in {time.monotonic() - begun:.0f} s")

    def _below(self, name: str) -> str:
        """Return the checksum of the image that ``name`` stands on."""
        if name in RECIPES:
            return self.checksum("base")
        content = self.offline.debian(refresh=self.refresh)
        self.refresh = False
        return content

    def _context(self, name: str) -> Path:
        return CACHE / "work/contexts" / name


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="images/build.py", description="Builds gpuhub's images offline.")
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=" ".join(NAMES))
    parser.add_argument("--archive", type=Path, default=CACHE, metavar="DIR", help="where the archives go")
    parser.add_argument(
        "--context", type=Path, metavar="DIR", help="only write the build context of one image"
    )
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="e.g. VSCODE=true"
    )
    parser.add_argument("--smoke", action="store_true", help="try each image after it was built")
    parser.add_argument("--refresh", action="store_true", help="take Debian's newest packages")
    options = parser.parse_args(arguments)
    work = CACHE / "work"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with (work / ".lock").open("w") as lock:
            # Two builders would pull contexts from under each other.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if options.context:
                if len(options.names) != 1:
                    raise CannotBuild("--context takes one image. Name one.")
                context.write(options.names[0], options.context, work)
                return 0
            given = dict(one.split("=", 1) for one in options.build_arg)
            builder = Builder(options.archive, given, refresh=options.refresh)
            for name in options.names:
                print(builder.archive(name))
                if options.smoke:
                    builder.smoke(name)
    except CannotBuild as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
