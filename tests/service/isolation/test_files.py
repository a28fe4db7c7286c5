"""Nothing of anybody else can be read, written or listed, wherever eve's code runs."""

from __future__ import annotations

import os

import pytest

from tests.service.isolation.conftest import Scene

pytestmark = pytest.mark.root

OPENS = """
import os, socket, stat
result = []
for path in paths:
    for way in ("read", "write", "list", "connect", "add"):
        try:
            kind = os.lstat(path).st_mode
            if way == "list":
                os.listdir(path)
            elif way == "add":
                file = os.path.join(path, "eve-was-here")
                os.close(os.open(file, os.O_WRONLY | os.O_CREAT))
                os.unlink(file)
            elif way == "connect":
                with socket.socket(socket.AF_UNIX) as knocking:
                    knocking.connect(path)
            elif stat.S_ISREG(kind):
                flags = os.O_RDONLY if way == "read" else os.O_WRONLY
                os.close(os.open(path, flags | os.O_NONBLOCK))
            else:
                continue
        except OSError:
            continue
        result.append([way, path])
"""
PLACES = ("server", "worker")


@pytest.mark.parametrize("where", PLACES)
async def test_of_all_files_sockets_and_folders_of_ann_and_the_hub_eve_opens_none(
    scene: Scene, where: str
) -> None:
    paths = [str(scene.hub.ready_file)]
    paths += scene.paths(scene.hub.data, scene.runtime, not_of=scene.eve)
    named = "\n".join(paths)
    for part in (
        *("jupyterhub.sqlite", "gpuhub.sqlite", "secrets.json", "run/broker.json", "logs/", "accounts.json"),
        *("launcher.sock", "host_key", "authorized_key", "gpu.sock", "kernel-", "/ssh", "ready.json"),
        *("homes/ann/.local/share/gpuhub/snapshots/", "homes/ann/worker.ipynb"),
    ):
        assert part in named, f"nothing like {part} was tried"
    assert await scene.run(scene.eve, where, OPENS, paths=paths) == []


@pytest.mark.parametrize("where", PLACES)
async def test_ann_opens_her_own_by_the_same_means(scene: Scene, where: str) -> None:
    mine = scene.paths(scene.hub.data, scene.runtime, not_of=scene.eve)
    opened = await scene.run(scene.ann, where, OPENS, paths=mine)
    ways = {way for way, _ in opened}
    assert ways == {"read", "write", "list", "connect", "add"}
    named = "\n".join(path for _, path in opened)
    for part in ("host_key", "gpu.sock", "kernel-", "snapshots/", "homes/ann/worker.ipynb"):
        assert part in named
    of_the_hub = [path for way, path in opened if os.lstat(path).st_uid == 0 and way != "add"]
    assert of_the_hub == [], "ann is no operator either"


async def test_what_people_leave_in_shared_memory_and_temporary_folders_is_theirs_alone(scene: Scene) -> None:
    code = """
import os
block = os.path.join("/dev/shm", f"ann-{os.getpid()}")
plain = os.path.join("/tmp", f"ann-{os.getpid()}")
for path in (block, plain):
    with open(path, "w") as file:
        file.write("private")
result = [block, plain]
"""
    made = await scene.run(scene.ann, "worker", code)
    try:
        assert await scene.run(scene.eve, "worker", OPENS, paths=made) == []
        read = [
            path for way, path in await scene.run(scene.ann, "server", OPENS, paths=made) if way == "read"
        ]
        assert read == made
    finally:
        for path in made:
            os.unlink(path)


async def test_links_in_eves_home_lead_nobody_with_more_rights_astray(scene: Scene) -> None:
    code = """
import os
link = os.path.expanduser("~/door")
os.symlink(secret, link)
try:
    result = open(link).read()
except OSError as error:
    result = type(error).__name__
"""
    secret = str(scene.hub.data / "secrets.json")
    assert await scene.run(scene.eve, "server", code, secret=secret) == "PermissionError"
    async with scene.at_work(scene.eve) as eve:
        answer = await eve.http.get(f"{eve.server_url}api/contents/door?content=1", headers=eve.headers)
        assert answer.status >= 400
        assert scene.settings["admin_token"] not in await answer.text()
