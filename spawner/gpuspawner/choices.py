"""What the choice page offers: a profile per environment, with its editors and, on a cluster, its sizes.

The same list judges the API. Pure but for reading the environments file and the prefixes' metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuspawner import environments
from gpuspawner.environments import Environment
from gpuspawner.images import EDITORS, ImageEnvironment, Size
from gpuspawner.language import N_
from gpuspawner.profiles import Profile, default_profile

_seen: dict[Path, tuple[float, list[tuple[str, str]]]] = {}


def profile_list(file: Path, own_prefix: Path, groups: set[str], *, vscode: bool) -> list[dict[str, Any]]:
    """Return the profile list for somebody in ``groups``. Raises `environments.BadEnvironments`."""
    listed = environments.read(file)
    own = Environment(
        name="base",
        title=N_("Data science"),
        description=N_("Python with pandas, scikit-learn and Matplotlib."),
        prefix=own_prefix,
        icon="chart",
    )
    if not any(entry.prefix == own_prefix or entry.name == "base" for entry in listed):
        listed = [own, *listed]
    return [
        {
            "slug": entry.name,
            "display_name": entry.title,
            "description": entry.description,
            "default": n == 0,
            "icon": entry.icon,
            "versions": _versions(entry.prefix),
            "kubespawner_override": {"prefix": str(entry.prefix)},
            "profile_options": {
                "editor": _editor_option([key for key in EDITORS if vscode or key != "vscode"])
            },
        }
        for n, entry in enumerate(environments.offered(listed, groups))
    ]


def image_profiles(listed: Sequence[ImageEnvironment], sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Return the profile list of a cluster's environments. Groups are judged by whoever shows it."""
    profiles = []
    for entry in listed:
        override: dict[str, Any] = {"image": entry.image}
        if entry.node_selector:
            override["node_selector"] = dict(entry.node_selector)
        if entry.tolerations:
            override["environment_tolerations"] = [dict(one) for one in entry.tolerations]
        options = {"editor": _editor_option(entry.editors)}
        fitting = [size for size in sizes if not entry.sizes or size.name in entry.sizes]
        if fitting:
            options["size"] = _size_option(fitting)
        profiles.append(
            {
                "slug": entry.name,
                "display_name": entry.title,
                "description": entry.description,
                "groups": list(entry.groups),
                "icon": entry.icon,
                "versions": list(entry.versions.items()),
                "kubespawner_override": override,
                "profile_options": options,
            }
        )
    return profiles


def cards(profiles: Sequence[Profile], last: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the profiles as the template shows them; ``last`` are the options of the last start."""
    last = last or {}
    known = {profile.slug for profile in profiles}
    selected = last.get("profile")
    if selected not in known:
        selected = default_profile(profiles).slug
    shown = []
    for profile in profiles:
        options = []
        for option in profile.options:
            wanted = last.get(option.name) if profile.slug == selected else None
            chosen = option.find(wanted) if isinstance(wanted, str) else None
            chosen = chosen or option.default
            options.append({"option": option, "chosen": chosen.key if chosen else None})
        shown.append(
            {
                "profile": profile,
                "selected": profile.slug == selected,
                "last_used": last.get("profile") == profile.slug,
                "options": options,
                "icon": profile.extra.get("icon", "python"),
                "versions": profile.extra.get("versions", []),
            }
        )
    return shown


def _editor_option(keys: Sequence[str]) -> dict[str, Any]:
    return {
        "display_name": N_("Open with"),
        "choices": {
            key: {
                "display_name": EDITORS[key].title,
                "default": key == "lab",
                "kubespawner_override": {"default_url": EDITORS[key].default_url, "editor": key},
            }
            for key in keys
        },
    }


def _size_option(sizes: Sequence[Size]) -> dict[str, Any]:
    return {
        "display_name": N_("Size"),
        "choices": {
            size.name: {
                "display_name": size.title,
                "description": size.described(),
                "default": size.default,
                "kubespawner_override": size.override(),
            }
            for size in sizes
        },
    }


def _versions(prefix: Path) -> list[tuple[str, str]]:
    """Metadata of a prefix, read again when a package was installed or removed."""
    sites = sorted(prefix.glob("lib/python3*/site-packages"))
    stamp = max((site.stat().st_mtime for site in sites), default=0.0)
    if prefix not in _seen or _seen[prefix][0] != stamp:
        _seen[prefix] = (stamp, environments.versions(prefix))
    return _seen[prefix][1]
