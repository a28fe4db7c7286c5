"""Under which accounts people's servers run, decided once at start and said in plain words."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpuhub.up.options import UpOptions, UpRefused
from gpuspawner.launcher.accounts import NUMBERED_FIRST, AccountMode


@dataclass(frozen=True)
class ServiceAccount:
    """Who hub, proxy and broker run as."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class People:
    """The mode and what to tell about it."""

    mode: AccountMode
    words: str
    warning: str = ""
    shared_uid: int | None = None


def service_account(options: UpOptions) -> ServiceAccount:
    """Return who the service runs as. Raises `UpRefused`."""
    if options.run_as is None:
        uid = os.geteuid()
        return ServiceAccount(uid, os.getegid(), _name(uid))
    if os.geteuid() != 0:
        raise UpRefused("--run-as needs root.", "Start as root, or leave --run-as out.")
    try:
        entry = pwd.getpwnam(options.run_as)
    except KeyError:
        raise UpRefused(f"There is no account {options.run_as} on this machine.") from None
    return ServiceAccount(entry.pw_uid, entry.pw_gid, entry.pw_name)


def decide(options: UpOptions, service: ServiceAccount, homes: Path) -> People:
    """Return the account mode. Raises `UpRefused` where it was asked for and cannot be."""
    root = os.geteuid() == 0
    if options.auth == "pam":
        if not root:
            raise UpRefused(
                "--auth pam needs root: servers run under people's own accounts.",
                "Start as root, or use --auth shared-password.",
            )
        return People("pam", "each person's server runs under that person's own account of this machine")
    if not root:
        return People(
            "shared",
            f"everybody's server runs under the account {service.name}: people who sign in can read each "
            "other's files, and gpuhub's own. Use it among people who trust each other.",
        )
    problem = reach_problem(homes)
    if problem is None:
        return People("numbered", "each person's server runs under an account number of its own")
    shared = service.uid
    return People(
        "shared",
        f"everybody's server runs under the account {service.name}",
        warning=(
            f"People's servers cannot have accounts of their own: {problem} "
            f"Everybody shares the account {service.name}; people who sign in can read each other's files, "
            "and gpuhub's own."
        ),
        shared_uid=shared,
    )


def reach_problem(homes: Path, uid: int = NUMBERED_FIRST) -> str | None:
    """Return why the account ``uid`` cannot run this Python or reach ``homes``; None: it can."""
    script = "import os, sys\nimport gpusession, gpulease\nos.stat(os.path.join(sys.argv[1], '.'))\n"
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", script, str(homes)],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", b"") or b"").decode(errors="replace").strip().splitlines()
        where = (
            f"{homes}"
            if said and "PermissionError" in said[-1] and str(homes) in said[-1]
            else sys.executable
        )
        return f"other accounts of this machine cannot reach {where}."
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
