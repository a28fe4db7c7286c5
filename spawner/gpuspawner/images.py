"""Environments of a cluster: images, how they are shown, and the sizes that a server may have.

The list is a YAML file (``{environments: [{name, title, description, icon, image, versions, groups,
editors, sizes, node_selector, tolerations}]}``), read at each look, so that a changed ConfigMap counts
without a restart. The repository's own `images/environments.yaml` has the same form: what it says about
building an environment is passed over here, and entries without an image are not on offer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gpuspawner.environments import BadEnvironments, EnvironmentName, Shown, read_as
from gpuspawner.language import N_, Sentence

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Editor:
    title: str
    default_url: str


EDITORS = {
    "lab": Editor("JupyterLab", "/lab"),
    "vscode": Editor("VS Code", "/vscode/"),
    "notebook": Editor(N_("Notebook"), "/tree"),
}


class ImageEnvironment(Shown):
    """One entry of a cluster's list."""

    image: str = Field("", max_length=400, pattern=r"^\S*$", description="registry/name:tag, or …@sha256:…")
    versions: dict[str, str] = Field(
        default_factory=dict, description="What the card shows: {Python: '3.11', PyTorch: '2.9'}."
    )
    editors: tuple[str, ...] = Field(
        ("lab", "notebook"), description="Editors that the image has: lab, notebook, vscode."
    )
    sizes: tuple[str, ...] = Field((), description="Names of the sizes that fit it; none: all.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that its machine has.")
    tolerations: tuple[dict[str, Any], ...] = Field((), description="Taints that its machine may have.")
    packages: tuple[str, ...] = Field((), description="For building it; passed over here.")
    index_url: str | None = Field(None, description="For building it; passed over here.")

    @field_validator("editors")
    @classmethod
    def _known(cls, editors: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [editor for editor in editors if editor not in EDITORS]
        if unknown or not editors:
            raise ValueError(f"editors are some of {', '.join(EDITORS)}")
        return editors


class Size(BaseModel):
    """How much of a machine a server may use. A worker on a GPU has its pool's share instead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: EnvironmentName
    title: str = Field(min_length=1, max_length=80)
    cpus: float = Field(gt=0, description="CPUs at most.")
    cpus_guaranteed: float = Field(0, ge=0, description="CPUs that are kept for it. Less packs more people.")
    memory: str = Field(
        pattern=r"^\d+(\.\d+)?[KMGT]$", description="Memory at most: 2G. Beyond it a kernel is ended."
    )
    memory_guaranteed: str = Field(
        "", pattern=r"^(\d+(\.\d+)?[KMGT])?$", description="Memory that is kept for it; empty: all of it."
    )
    default: bool = Field(False, description="Taken where nothing was chosen; none marked: the first.")

    def described(self) -> str:
        """Return what the page says: ``2 CPUs, 4 GB memory``."""
        size = {"cpus": f"{self.cpus:g}", "memory": f"{memory_bytes(self.memory) / 2**30:.3g}"}
        if self.cpus == 1:
            return Sentence("{cpus} CPU, {memory} GB memory", **size)
        return Sentence("{cpus} CPUs, {memory} GB memory", **size)

    def override(self) -> dict[str, Any]:
        """Return the spawner's settings for it."""
        return {
            "cpu_limit": self.cpus,
            "cpu_guarantee": self.cpus_guaranteed,
            "mem_limit": self.memory,
            "mem_guarantee": self.memory_guaranteed or self.memory,
        }


SIZES = (
    Size(name="small", title=N_("Small"), cpus=1, cpus_guaranteed=0.1, memory="2G", memory_guaranteed="512M"),
    Size(
        name="medium", title=N_("Medium"), cpus=2, cpus_guaranteed=0.25, memory="4G", memory_guaranteed="1G"
    ),
    Size(name="large", title=N_("Large"), cpus=4, cpus_guaranteed=0.5, memory="16G", memory_guaranteed="4G"),
)
"""Where nobody says otherwise. Guarantees are low: most people read and think most of the time."""


def read(path: Path) -> list[ImageEnvironment]:
    """Return what is on offer: the entries with an image. Raises `BadEnvironments`, also for none."""
    listed = [entry for entry in read_as(ImageEnvironment, path) if entry.image]
    if not listed:
        raise BadEnvironments(f"{path} lists no environment with an image")
    return listed


def read_sizes(raw: list[Mapping[str, Any]]) -> list[Size]:
    """Return the sizes. Raises `BadEnvironments`."""
    try:
        return [Size.model_validate(entry) for entry in raw]
    except ValueError as error:
        raise BadEnvironments(f"the sizes: {error}") from None


def memory_bytes(text: str) -> float:
    """Return the bytes of ``4G``, as JupyterHub reads it (powers of 1024)."""
    return float(text[:-1]) * UNITS[text[-1]]
