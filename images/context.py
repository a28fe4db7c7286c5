"""Build contexts: the small folder that each image is built from.

Exists so that an image never sees the repository with its node_modules, and so that Docker at a site and
our offline builder build from the very same files. Promises: the same sources give the same bytes (our
wheels too), and third-party requirements come from our wheel's own metadata: `setup.py` is the one list.
"""

from __future__ import annotations

import email
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "images"
EPOCH = "1700000000"
"""The time that built files carry, in seconds since 1970: a real one would make each build another."""
BACKEND = "setuptools==80.9.0"
"""What builds our wheel; newer ones may write other bytes."""
EXTRAS = {"hub": ("hub",), "base": ("session", "science")}
MORE = {"hub": (), "base": ("jupyterhub",)}  # a server signs people in at the hub with its client side
RECIPES = ("pytorch", "tensorflow")
NAMES = ("hub", "base", *RECIPES)
FRAMEWORK = "framework"
"""The folder that all recipes are built from: they differ in their packages alone."""
EXTENSION_PARTS = (
    "jupyterlab_gpuhub",
    "LICENSE",
    "README.md",
    "install.json",
    "labconfig.json",
    "serverconfig.json",
    "package.json",
    "pyproject.toml",
)


class CannotBuild(Exception):
    """The message is one sentence with what to do."""


def digest(parts: Iterable[Path | str]) -> str:
    """Return 12 hex digits for files (names, modes and contents; folders whole) and plain texts."""
    seen = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            seen.update(part.encode() + b"\0")
            continue
        for path in sorted([part, *part.rglob("*")] if part.is_dir() else [part]):
            if path.is_file() and "__pycache__" not in path.parts:
                name = str(path.relative_to(part.parent))
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                seen.update(f"{name} {path.stat().st_mode & 0o111} {content}\n".encode())
    return seen.hexdigest()[:12]


def write(name: str, folder: Path, cache: Path) -> None:
    """Make the context of image ``name`` in ``folder`` (emptied first). Raises `CannotBuild`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(IMAGES / (FRAMEWORK if name in RECIPES else name) / "Dockerfile", folder)
    shutil.copy(ROOT / "constraints.txt", folder)
    if name in RECIPES:
        (folder / "requirements.txt").write_text(lines(recipe(name)))
        pins = IMAGES / FRAMEWORK / f"{name}-constraints.txt"
        if pins.exists():
            with (folder / "constraints.txt").open("a") as whole:
                whole.write(pins.read_text())
        return
    wheels = folder / "wheels"
    wheels.mkdir()
    own = gpuhub_wheel(cache)
    shutil.copy(own, wheels)
    (folder / "requirements.txt").write_text(lines([*requirements(own, EXTRAS[name]), *MORE[name]]))
    if name == "hub":
        for path in ("package.json", "package-lock.json", "hub/jupyterhub_config.py", "hub/culler_config.py"):
            shutil.copy(ROOT / path, folder)
    else:
        shutil.copy(extension_wheel(cache), wheels)
        shutil.copytree(IMAGES / "vscode", folder / "vscode")


def lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def recipe(name: str) -> list[str]:
    """Return the packages of a recipe of environments.yaml."""
    listed = yaml.safe_load((IMAGES / "environments.yaml").read_text())["environments"]
    return next([str(one) for one in entry["packages"]] for entry in listed if entry["name"] == name)


def requirements(wheel: Path, extras: Sequence[str]) -> list[str]:
    """Return what ``wheel`` needs with ``extras``, sorted, without markers."""
    with zipfile.ZipFile(wheel) as content:
        metadata = next(name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(content.read(metadata)).get_all("Requires-Dist", [])
    needed = set()
    for one in map(Requirement, fields):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            one.marker = None
            needed.add(str(one))
    return sorted(needed)


def gpuhub_wheel(cache: Path) -> Path:
    sources = [
        ROOT / part for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "hub", "spawner")
    ]
    recipes = IMAGES / "environments.yaml"
    backend = cache / BACKEND
    if not backend.is_dir():
        pip("install", "--target", str(backend), BACKEND)
    return _wheel(
        cache / "wheels" / f"gpuhub-{digest([*sources, recipes, BACKEND])}", sources, [recipes], backend
    )


def extension_wheel(cache: Path) -> Path:
    extension = ROOT / "jupyterlab-extension"
    if not (extension / "jupyterlab_gpuhub/labextension/package.json").is_file():
        raise CannotBuild("The JupyterLab extension is not built. Run: make install")
    parts = [extension / part for part in EXTENSION_PARTS]
    return _wheel(cache / "wheels" / f"extension-{digest(parts)}", parts, [], None)


def _wheel(folder: Path, sources: list[Path], images: list[Path], backend: Path | None) -> Path:
    """Build a wheel from copies (setuptools writes beside its sources), once for the same ``folder``."""
    if found := sorted(folder.glob("*.whl")):
        return found[0]
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    tree = aside / "source"
    (tree / "images").mkdir(parents=True)
    for source in sources:
        if source.is_dir():
            shutil.copytree(
                source, tree / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(source, tree)
    for image in images:
        shutil.copy(image, tree / "images")
    env = {"SOURCE_DATE_EPOCH": EPOCH} | ({"PYTHONPATH": str(backend)} if backend else {})
    try:
        pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(aside / "made"), str(tree), env=env)
        (aside / "made").rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return next(folder.glob("*.whl"))


def pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    call(command, env=env, hint="Run it with the Python of .venv: make install")


def call(command: list[str], *, hint: str, env: dict[str, str] | None = None, shown: str = "") -> None:
    """Run it, its output on the error stream. Raises `CannotBuild` with ``hint``; it shows ``shown``."""
    try:
        done = subprocess.run(command, env={**os.environ, **(env or {})}, stdout=sys.stderr, check=False)
    except FileNotFoundError:
        raise CannotBuild(f"{command[0]} is missing. {hint}") from None
    if done.returncode:
        raise CannotBuild(f"This failed: {shown or ' '.join(command)}. {hint}")
