"""Tries an image from inside; `python images/build.py NAME --smoke` runs it in a container of that image.

Exists because an image that builds may still not work: a package without its library, a file that people
could change under everybody's feet, a password that stayed. Run as the image's own user it tries what hub,
server and worker do first; run as root it looks at what was left behind. Prints a line per check, and ends
with 1 at the first that fails.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PREFIX = Path("/opt/gpuhub")
SITE = PREFIX / "lib/python3.11/site-packages"
OURS = {"gpuhub", "jupyterlab-gpuhub"}
WITH_PYTHON = {"pip", "setuptools"}
HUB_MODULES = (
    "gpuhub.api.wiring",
    "gpuhub.backends.kubernetes",
    "gpuhub.config",
    "gpuhub.telemetry",
    "gpuspawner.kube",
    "jupyterhub_idle_culler",
    "psycopg",
)
BASE_MODULES = (
    "gpusession.server",
    "gpusession.worker",
    "gpusession.kernels.provisioner",
    "jupyterhub.singleuser",
    "matplotlib.pyplot",
    "numpy",
    "pandas",
    "sklearn.linear_model",
)
BUILD_TOOLS = ("gcc", "g++", "make", "npm")
MUST_NOT_BE = (
    "/etc/pip.conf",
    "/root/.cache",
    "/root/.npm",
    "/root/.npmrc",
    "/run/secrets",
    "/wheels",
    "/own",
)
MUST_BE_EMPTY = ("/tmp", "/var/lib/apt/lists", "/var/cache/apt/archives")
EXECUTED = """
import jupyter_client.manager as m
manager, client = m.start_new_kernel(kernel_name="python3")
reply = client.execute_interactive("import pandas, os; assert os.getcwd()", timeout=60)
manager.shutdown_kernel(now=True)
assert reply["content"]["status"] == "ok", reply
"""
WORKER_SECONDS = 60.0


def ran(*command: str) -> str:
    """Return what ``command`` prints. Raises AssertionError with its output where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def runs_as_an_ordinary_user() -> str:
    assert (os.getuid(), os.getgid()) == (1000, 1000), os.getuid()
    held = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    assert held is not None
    assert int(held[1], 16) == 0, f"capabilities {held[1]}"
    with tempfile.TemporaryFile(dir=Path.cwd()):
        return f"{os.getuid()}:{os.getgid()} in {Path.cwd()}, which is writable"


def programs_cannot_be_changed() -> str:
    looked_at = 0
    for top in ("/opt", "/usr", "/etc", "/bin/", "/sbin/"):
        for folder, _, files in os.walk(top):
            for name in (folder, *(os.path.join(folder, file) for file in files)):
                looked_at += 1
                assert os.path.islink(name) or not os.access(name, os.W_OK), f"{name} is writable"
    return f"{looked_at} files and folders"


def versions_are_the_known_ones() -> str:
    lines = (PREFIX / "constraints.txt").read_text().splitlines()
    known = dict(line.split("==") for line in lines if "==" in line)
    pinned = {plain(name): version.split()[0] for name, version in known.items()}
    found = {plain(one.name): one.version for one in importlib.metadata.distributions(path=[str(SITE)])}
    others = {name: version for name, version in found.items() if name not in OURS | WITH_PYTHON}
    wrong = {name: version for name, version in others.items() if pinned.get(name) != version}
    assert not wrong, f"not as in constraints.txt: {wrong}"
    return f"{len(others)} packages as in constraints.txt"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def compiled(package: str) -> str:
    """Start-up reads compiled files: nobody else can write them later."""
    sources = list((SITE / package).rglob("*.py"))
    missing = [path.name for path in sources if not list(path.parent.glob(f"__pycache__/{path.stem}.*.pyc"))]
    assert sources, f"{package} is missing"
    assert not missing, f"not compiled: {missing[:5]}"
    for path in (SITE / package).rglob("*.pyc"):
        # PEP 552: the second word says that the source's hash counts, not its time, which a layer may change.
        assert path.read_bytes()[4] & 1, f"{path} is bound to a time"
    return f"{len(sources)} files of {package}"


def modules_import(*names: str) -> str:
    ran(sys.executable, "-P", "-W", "error::SyntaxWarning", "-c", f"import {', '.join(names)}")
    return ", ".join(names)


def programs_answer(*commands: str) -> str:
    return "; ".join(f"{name}: {(ran(*name.split()).strip().splitlines() or [''])[0]}" for name in commands)


def the_session_is_switched_on() -> str:
    listed = ran("jupyter", "server", "extension", "list")
    assert re.search(r"gpusession\.server.*enabled", listed), listed
    assert re.search(r"jupyterlab-gpuhub v\S+.*enabled.*OK", ran("jupyter", "labextension", "list"))
    return "gpusession.server, jupyterlab-gpuhub"


def own_packages_come_last() -> str:
    path = json.loads(ran(sys.executable, "-P", "-c", "import sys, json; print(json.dumps(sys.path))"))
    user = str(Path.home() / ".local/lib/python3.11/site-packages")
    os.makedirs(user, exist_ok=True)
    path = json.loads(ran(sys.executable, "-P", "-c", "import sys, json; print(json.dumps(sys.path))"))
    shutil.rmtree(Path.home() / ".local")
    assert user in path, path
    assert path.index(str(SITE)) < path.index(user), path
    return "found, after the image's own"


def a_kernel_runs() -> str:
    ran(sys.executable, "-c", EXECUTED)
    return "python3"


def a_worker_answers() -> str:
    folder = Path(tempfile.mkdtemp())
    make = "import asyncssh, sys; k = asyncssh.generate_private_key('ssh-ed25519'); "
    make += "k.write_private_key(sys.argv[1]); k.write_public_key(sys.argv[2])"
    ran(sys.executable, "-c", make, str(folder / "host_key"), str(folder / "authorized_key"))
    command = [
        sys.executable,
        "-P",
        "-m",
        "gpusession.worker",
        "--dir",
        str(folder),
        "--listen",
        "tcp:127.0.0.1:0",
    ]
    worker = subprocess.Popen(["/usr/bin/tini", "--", *command], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + WORKER_SECONDS
        while not (folder / "ready.json").exists():
            gave_up = worker.poll() is not None or time.monotonic() > deadline
            assert not gave_up, worker.communicate()[1].decode()
            time.sleep(0.1)
        address = json.loads((folder / "ready.json").read_text())["address"]
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10) as door:
            banner = door.recv(64).decode().strip()
        assert banner.startswith("SSH-2.0-"), banner
    finally:
        worker.terminate()
        worker.communicate(timeout=60)
    assert worker.returncode == 0, f"the worker ended with {worker.returncode}"
    shutil.rmtree(folder)
    return banner


def nothing_was_left() -> str:
    for name in MUST_NOT_BE:
        assert not os.path.lexists(name) or (os.path.isdir(name) and not os.listdir(name)), f"{name} is there"
    for name in MUST_BE_EMPTY:
        assert not os.path.isdir(name) or os.listdir(name) in ([], ["partial"]), f"{name}: {os.listdir(name)}"
    for tool in BUILD_TOOLS:
        assert shutil.which(tool) is None, f"{tool} is there"
    return "no caches, no build tools, no secrets"


def nothing_gives_rights_of_ours() -> str:
    found = []
    for folder, _, files in os.walk("/opt"):
        found += [f"{folder}/{name}" for name in files if os.lstat(f"{folder}/{name}").st_mode & stat.S_ISUID]
    assert not found, found
    return "no program of ours changes who runs it"


CHECKS: dict[str, list[Callable[[], str]]] = {
    "root": [nothing_was_left, nothing_gives_rights_of_ours],
    "hub": [
        runs_as_an_ordinary_user,
        programs_cannot_be_changed,
        versions_are_the_known_ones,
        lambda: compiled("gpuhub"),
        lambda: compiled("tornado"),
        lambda: modules_import(*HUB_MODULES),
        lambda: programs_answer(
            "jupyterhub --version", "configurable-http-proxy --version", "node --version"
        ),
        lambda: programs_answer("gpuhub --help", "python -P -m gpuhub.api --help"),
    ],
    "base": [
        runs_as_an_ordinary_user,
        programs_cannot_be_changed,
        versions_are_the_known_ones,
        lambda: compiled("gpusession"),
        lambda: compiled("tornado"),
        lambda: modules_import(*BASE_MODULES),
        lambda: programs_answer("jupyterhub-singleuser --version", "jupyter lab --version", "gpu --help"),
        lambda: programs_answer("git --version", "curl --version", "less --version", "nano --version"),
        the_session_is_switched_on,
        own_packages_come_last,
        a_kernel_runs,
        a_worker_answers,
    ],
    "pytorch": [lambda: modules_import("torch", "torchvision"), versions_are_the_known_ones, a_kernel_runs],
    "tensorflow": [lambda: modules_import("tensorflow"), versions_are_the_known_ones, a_kernel_runs],
}


def main(arguments: list[str]) -> int:
    for check in CHECKS[arguments[0]]:
        begun = time.monotonic()
        try:
            said = check()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print(f"FAILED {check.__name__}: {error}", flush=True)
            return 1
        print(f"ok {check.__name__.strip('<>')}: {said} ({time.monotonic() - begun:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
