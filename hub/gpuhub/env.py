"""Environments of one machine: add a prefix, or build one from a recipe.

The recipes are `images/environments.yaml`, the one list for machines and images alike. A prefix is
offered only after it has shown that it can run a server and a worker.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpuspawner.environments import BadEnvironments, Environment, read, write

NEEDED = (
    "jupyterhub",
    "jupyterlab",
    "gpusession.server",
    "gpusession.worker",
    "gpusession.kernels.provisioner",
)
FILE = "environments.yaml"


class EnvironmentRefused(Exception):
    """It cannot be done; the message is one sentence with what to do."""


class Recipe(BaseModel):
    """How an environment is made."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    description: str = ""
    icon: str = "python"
    packages: list[str] = Field(default_factory=list)
    groups: tuple[str, ...] = ()
    index_url: str | None = Field(None, description="Another package index, for one framework's own builds.")


class _Recipes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    environments: list[Recipe]


def recipes() -> list[Recipe]:
    """Return the recipes of this checkout or of the installed package."""
    places = (
        Path(__file__).resolve().parents[2] / "images" / FILE,
        Path(sysconfig.get_path("data")) / "share" / "gpuhub" / FILE,
    )
    for place in places:
        if place.is_file():
            try:
                return _Recipes.model_validate(yaml.safe_load(place.read_text())).environments
            except (ValidationError, yaml.YAMLError) as error:
                raise EnvironmentRefused(f"The recipes in {place} cannot be read: {error}") from None
    return []


def describe(data: Path) -> Iterator[str]:
    """Yield lines about what is on offer and what can be built."""
    listed = _read(data)
    yield f"on offer: base  ({sys.prefix}, the one that gpuhub runs in)"
    for entry in listed:
        yield f"on offer: {entry.name}  ({entry.prefix}) {entry.title}"
    known = {entry.name for entry in listed}
    for recipe in recipes():
        if recipe.name not in known:
            yield f"can be built: {recipe.name}  {recipe.title}: {recipe.description}"


def add(
    data: Path, name: str, prefix: Path, title: str | None, description: str, groups: tuple[str, ...]
) -> None:
    """Offer ``prefix``. Raises `EnvironmentRefused`."""
    prefix = prefix.expanduser().absolute()
    check_prefix(prefix)
    try:
        entry = Environment(
            name=name, title=title or name, description=description, prefix=prefix, groups=groups, icon=name
        )
    except ValidationError as error:
        raise EnvironmentRefused(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}.") from None
    _put(data, entry)


def build(data: Path, name: str, tell: Callable[[str], None]) -> None:
    """Make a venv under ``data/envs`` from the recipe and offer it. Raises `EnvironmentRefused`."""
    recipe = next((recipe for recipe in recipes() if recipe.name == name), None)
    if recipe is None:
        known = ", ".join(recipe.name for recipe in recipes())
        raise EnvironmentRefused(f"There is no recipe {name}. Known: {known}.")
    prefix = data / "envs" / name
    prefix.parent.mkdir(parents=True, exist_ok=True)
    tell(f"A Python environment in {prefix}")
    _run([sys.executable, "-m", "venv", str(prefix)])
    pip = [
        str(prefix / "bin/python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--progress-bar=on",
    ]
    root = Path(__file__).resolve().parents[2]
    own = ["-e", f"{root}[session]"] if (root / "setup.py").is_file() else ["gpuhub[session]"]
    constraints = ["-c", str(root / "constraints.txt")] if (root / "constraints.txt").is_file() else []
    tell("gpuhub's session and JupyterLab")
    # jupyterhub itself: a server signs people in at the hub.
    _run([*pip, *constraints, *own, "jupyterhub"])
    extension = root / "jupyterlab-extension"
    if (extension / "jupyterlab_gpuhub" / "labextension").is_dir():
        _run([*pip, *constraints, "hatchling", "hatch-jupyter-builder", "hatch-nodejs-version"])
        _run([*pip, "--no-build-isolation", "--no-deps", str(extension)])
    tell(f"{recipe.title}: {', '.join(recipe.packages)} (this can take some minutes)")
    index = ["--extra-index-url", recipe.index_url] if recipe.index_url else []
    _run([*pip, *index, *recipe.packages])
    check_prefix(prefix)
    _put(
        data,
        Environment(
            name=name,
            title=recipe.title,
            description=recipe.description,
            prefix=prefix,
            groups=recipe.groups,
            icon=recipe.icon,
        ),
    )


def check_prefix(prefix: Path) -> None:
    """Raise `EnvironmentRefused` unless ``prefix`` can run servers and workers."""
    python = prefix / "bin" / "python"
    if not python.exists():
        raise EnvironmentRefused(f"{prefix} is not a Python prefix: {python} is missing.")
    script = "import importlib.util as u, sys\n" + "\n".join(
        f"u.find_spec({name!r}) or sys.exit({name!r})" for name in NEEDED
    )
    try:
        done = subprocess.run(
            [str(python), "-P", "-c", script], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentRefused(f"{python} does not run: {error}.") from None
    if done.returncode:
        missing = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise EnvironmentRefused(
            f"{prefix} cannot run a session: {missing} is missing. "
            f"Install it there: {python} -m pip install 'gpuhub[session]' jupyterhub jupyterlab-gpuhub"
        )


def _put(data: Path, entry: Environment) -> None:
    listed = [known for known in _read(data) if known.name != entry.name]
    write(data / FILE, [*listed, entry])


def _read(data: Path) -> list[Environment]:
    try:
        return read(data / FILE)
    except BadEnvironments as error:
        raise EnvironmentRefused(f"{error}.") from None


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise EnvironmentRefused(f"This failed: {' '.join(command)}")
