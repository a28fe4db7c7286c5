"""Eve has a server, a GPU and bad intentions: from inside of both she reaches nothing that is not hers."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.cluster import Cluster
from tests.cluster.people import notebook, person
from tests.cluster.release import RELEASE, USERS, Release
from tests.person import Person, Tab

pytestmark = pytest.mark.asyncio(loop_scope="module")

REACHES = """
import concurrent.futures, socket
def reaches(place):
    try:
        socket.create_connection(place, timeout=2).close()
    except OSError:
        return False
    return True
def reached(places):
    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        return [name for name, yes in zip(places, pool.map(reaches, places.values())) if yes]
"""
RIGHTS = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
powers = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")}
rights = (os.getuid(), status["NoNewPrivs"].strip(), status["Seccomp"].strip(), powers)
"""
FORBIDDEN = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *words):
    return libc[call](*words) == -1
attempts = {
    "mounts": refused("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "other namespaces": refused("unshare", 0x10000000 | 0x20000),
    "another root": refused("chroot", b"/tmp"),
    "root's number": refused("setuid", 0),
    "device files": refused("mknod", b"/tmp/kmsg", 0o20600, 0x10b),
    "the kernel's log": refused("klogctl", 10, None, 0),
}
"""
FILES = """
import os
mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
devices = sorted(os.listdir("/dev"))
keys = [name for name in os.environ if "SECRET" in name or "KUBE" in name or name.endswith("_PASSWORD")]
"""


@dataclass(frozen=True)
class Scene:
    """Eve's notebook on her server and another on her GPU; Ann has both too."""

    gpuhub: Release
    ann: Person
    eve: Person
    tabs: dict[str, Tab]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(gpuhub: Release) -> AsyncIterator[Scene]:
    async with (
        contextlib.asynccontextmanager(person)(gpuhub, "ann") as ann,
        contextlib.asynccontextmanager(person)(gpuhub, "eve") as eve,
    ):
        anns = await notebook(ann)
        await anns.flip("worker")
        tabs = {"server": await notebook(eve, "here.ipynb"), "worker": await notebook(eve, "there.ipynb")}
        await tabs["worker"].flip("worker")
        yield Scene(gpuhub, ann, eve, tabs)


async def told(tab: Tab, program: str, expression: str) -> Any:
    cell = await tab.run(program)
    assert cell.status == "ok", cell.text
    return ast.literal_eval(await tab.value(expression))


def address(gpuhub: Release, part: str) -> str:
    return _ip(gpuhub, RELEASE, gpuhub.pod(part))


def _ip(gpuhub: Release, namespace: str, name: str) -> str:
    pod = gpuhub.kubectl.get("pod", name, namespace)
    assert pod is not None
    return str(pod["status"]["podIP"])


def worker_of(gpuhub: Release, name: str) -> str:
    [found] = [
        one["metadata"]["name"]
        for one in gpuhub.kubectl.list("pod", USERS, "component=gpuhub-worker")
        if name in {*one["metadata"]["labels"].values(), *one["metadata"].get("annotations", {}).values()}
    ]
    return str(found)


async def test_nothing_answers_but_what_she_needs(cluster: Cluster, scene: Scene) -> None:
    gpuhub = scene.gpuhub
    her_worker = _ip(gpuhub, USERS, worker_of(gpuhub, "eve"))
    places = {
        "the API server": (cluster.numbers.api_ip, 443),
        "the API server, at the node": (cluster.node_ip, 6443),
        "the kubelet": (cluster.node_ip, 10250),
        "the machine's data": ("169.254.169.254", 80),
        "the proxy's entry on the node": (cluster.node_ip, 30080),
        "the world": ("198.51.100.1", 80),
        "the host": (cluster.host_ip, 22),
        "the proxy's orders": (address(gpuhub, "proxy"), 8001),
        "ann's server": (_ip(gpuhub, USERS, "jupyter-ann"), 8888),
        "ann's worker": (_ip(gpuhub, USERS, worker_of(gpuhub, "ann")), 2222),
        "the hub": (address(gpuhub, "hub"), 8081),
        "the broker": (address(gpuhub, "broker"), 8090),
        "her worker": (her_worker, 2222),
    }
    for where, allowed in {"server": {"the hub", "the broker", "her worker"}, "worker": set()}.items():
        reached = set(await told(scene.tabs[where], REACHES, f"reached({places!r})"))
        # A pod reaches itself, whatever the rules are.
        assert reached - ({"her worker"} if where == "worker" else set()) == allowed, where


async def test_neither_of_her_pods_has_a_power_over_its_machine(scene: Scene) -> None:
    for tab in scene.tabs.values():
        uid, no_new, seccomp, powers = await told(tab, RIGHTS, "rights")
        assert uid == 1000
        assert (no_new, seccomp) == ("1", "2")
        assert set(powers.values()) == {0}
        attempts = await told(tab, FORBIDDEN, "attempts")
        assert all(attempts.values()), attempts


async def test_no_token_no_device_and_no_secret_of_others_lies_in_them(scene: Scene) -> None:
    for where, tab in scene.tabs.items():
        mounts, devices, keys = await told(tab, FILES, "(mounts, devices, keys)")
        assert not [
            one for one in mounts if "serviceaccount" in one or "docker" in one or "containerd" in one
        ]
        assert not [one for one in devices if one.startswith(("nvidia", "mem", "sd", "vd", "kvm"))]
        assert not keys, keys
        gpus = "__import__('glob').glob('/run/gpu/*')"
        found = ast.literal_eval(await tab.value(gpus))
        assert len(found) == (1 if where == "worker" else 0), found
        homes = await tab.value("sorted(__import__('os').listdir('/home'))")
        assert "ann" not in homes
        for secret in ("admin-token", "password"):
            search = f"{scene.gpuhub.secret(secret)!r} in repr(dict(__import__('os').environ))"
            assert await tab.value(search) == "False"


async def test_what_is_anns_is_refused_to_eves_token(scene: Scene) -> None:
    gpuhub, ann, eve = scene.gpuhub, scene.ann, scene.eve
    lease = await ann.lease()
    assert lease is not None
    for method, url in [
        ("GET", f"{ann.server_url}api/contents"),
        ("GET", f"{ann.server_url}gpuhub/api/v1/status"),
        ("GET", f"{ann.server_url}gpuhub/api/v1/snapshots"),
        ("GET", f"{ann.server_url}vscode/"),
        ("GET", f"{gpuhub.url}hub/api/users/ann"),
        ("DELETE", f"{gpuhub.url}hub/api/users/ann/server"),
        ("GET", f"{gpuhub.url}services/gpu/api/v1/leases/{lease['id']}"),
        ("DELETE", f"{gpuhub.url}services/gpu/api/v1/leases/{lease['id']}"),
        ("POST", f"{gpuhub.url}services/gpu/api/v1/leases/{lease['id']}/keep"),
    ]:
        async with eve.http.request(method, url, headers=eve.headers, allow_redirects=False) as answer:
            assert answer.status in (403, 404), (method, url, answer.status)
    assert (await ann.lease() or {}).get("state") == "active"


async def test_her_worker_lets_in_nobody_without_the_key_of_her_lease(scene: Scene) -> None:
    gpuhub = scene.gpuhub
    port = f"('{_ip(gpuhub, USERS, worker_of(gpuhub, 'eve'))}', 2222)"
    program = f"""
import asyncio, asyncssh
async def enter():
    key = asyncssh.generate_private_key("ssh-ed25519")
    try:
        async with asyncssh.connect(*{port}, username="eve", client_keys=[key], known_hosts=None):
            return "in"
    except asyncssh.PermissionDenied:
        return "denied"
answer = await enter()
"""
    assert await told(scene.tabs["server"], program, "answer") == "denied"
