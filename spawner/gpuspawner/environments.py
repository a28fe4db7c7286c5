"""Environments: what servers and workers run in, and how they are shown. Here: those of one machine.

On one machine an environment is a Python prefix (on a cluster an image: `images`). The list is a YAML
file in the data folder (``{environments: [{name, title, description, prefix, groups}]}``), read anew
whenever it changes; the launcher reads the same file to know which prefixes it may run. The prefix that
gpuhub itself runs in is always the first one, unless the operator listed others and switched it off.
"""

from __future__ import annotations

import os
import re
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
SHOWN = {
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "jax": "JAX",
    "scikit-learn": "scikit-learn",
    "pandas": "pandas",
    "numpy": "NumPy",
    "matplotlib": "Matplotlib",
}
"""Packages whose version a card shows, the most telling first."""
SHOWN_AT_ONCE = 4


class BadEnvironments(ValueError):
    """The file cannot be used. The message says why."""


Kind = TypeVar("Kind", bound="Shown")


class Shown(BaseModel):
    """How an environment is shown, and to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: EnvironmentName
    title: str = Field(min_length=1, max_length=80)
    description: str = Field("", max_length=400)
    groups: tuple[str, ...] = Field((), description="Hub groups that may use it; none: everybody.")
    icon: str = Field("python", pattern=r"^[a-z0-9-]{1,40}$", description="Name of the card's icon.")


class Environment(Shown):
    """One entry of a machine's list."""

    prefix: Path = Field(description="A Python prefix: <prefix>/bin/python exists.")

    @property
    def python(self) -> Path:
        return self.prefix / "bin" / "python"


class Listed(BaseModel, Generic[Kind]):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    environments: list[Kind] = Field(default_factory=list)


def read(path: Path) -> list[Environment]:
    """Return what the file lists; a missing file lists nothing. Raises `BadEnvironments`."""
    return read_as(Environment, path)


def read_as(kind: type[Kind], path: Path) -> list[Kind]:
    """`read` for another kind of entry."""
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadEnvironments(f"{path} cannot be read: {error}") from None
    try:
        listed = Listed[kind].model_validate(raw or {}).environments  # type: ignore[valid-type]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadEnvironments(f"{path}: {place}: {first['msg']}") from None
    names = [entry.name for entry in listed]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadEnvironments(f"{path}: {', '.join(sorted(twice))} stands twice")
    return listed


def write(path: Path, entries: list[Environment]) -> None:
    """Replace the file in one step; a reader sees the old or the new list, never half of one."""
    body: list[dict[str, Any]] = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    text = "# Environments of this gpuhub. `gpuhub env add` and `gpuhub env build` write here.\n"
    text += yaml.safe_dump({"environments": body}, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".environments-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    os.chmod(aside, mode)
    os.replace(aside, path)


def versions(prefix: Path) -> list[tuple[str, str]]:
    """Return (name, version) of what a card shows: Python, then the telling packages. Runs nothing."""
    found: dict[str, str] = {}
    python = ""
    for site in sorted(prefix.glob("lib/python3*/site-packages")):
        python = site.parent.name.removeprefix("python")
        for dist in distributions(path=[str(site)]):
            name = re.sub(r"[-_.]+", "-", (dist.metadata["Name"] or "").lower())
            if name in SHOWN:
                found[name] = dist.version
    shown = [(SHOWN[name], found[name]) for name in SHOWN if name in found][:SHOWN_AT_ONCE]
    return ([("Python", python)] if python else []) + shown


def offered(entries: list[Environment], groups: set[str]) -> list[Environment]:
    """Return those that somebody in ``groups`` may use."""
    return [entry for entry in entries if not entry.groups or groups & set(entry.groups)]
