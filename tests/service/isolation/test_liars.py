"""Rubbish and lies: a snapshots folder full of traps, a worker's ready.json, a server's word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.person import eventually
from tests.service.isolation.conftest import Scene

pytestmark = pytest.mark.root

TRAPS = """
import json, os, pathlib
folder = pathlib.Path("~/.local/share/gpuhub/snapshots").expanduser()
good = next(one for one in folder.iterdir() if not one.name.startswith(".") and one.is_dir())
manifest = next(good.glob("manifest*"))

def named(number):
    return folder / f"{good.name[:-2]}{number:02d}"

made = []
def trap(number, build):
    path = named(number)
    if path.exists():
        return
    build(path)
    made.append(path.name)

def a_link(path): path.symlink_to(others)
def linked_manifest(path): path.mkdir(); (path / manifest.name).symlink_to(secret)
def endless(path): path.mkdir(); (path / manifest.name).symlink_to("/dev/zero")
def fifo(path): path.mkdir(); os.mkfifo(path / manifest.name)
def deep(path): path.mkdir(); (path / manifest.name).write_text("[" * 200_000)
def number(path): path.mkdir(); (path / manifest.name).write_text('{"id": 1e999, "verdicts": "x"}')
def binary(path): path.mkdir(); (path / manifest.name).write_bytes(bytes(range(256)) * 99)
def folder_of_it(path): path.mkdir(); (path / manifest.name).mkdir()
def huge(path):
    path.mkdir()
    with open(path / manifest.name, "wb") as file:
        file.write(b'{"id": "')
        file.truncate(1 << 33)
def loop(path): path.mkdir(); (path / manifest.name).symlink_to(manifest.name)
def escaping(path):
    path.mkdir()
    content = json.loads(manifest.read_text())
    content["id"] = path.name
    text = json.dumps(content)
    for file in [one.name for one in good.iterdir() if one != manifest]:
        text = text.replace(file, "../../../../../../ann/worker.ipynb")
    (path / manifest.name).write_text(text)

for at, build in enumerate((a_link, linked_manifest, endless, fifo, deep, number, binary, folder_of_it, huge,
                            loop, escaping), 80):
    trap(at, build)
result = [good.name, made]
"""
CLEAR = """
import pathlib, shutil
folder = pathlib.Path("~/.local/share/gpuhub/snapshots").expanduser()
for name in made:
    path = folder / name
    path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
result = None
"""


async def test_eves_list_of_saved_states_survives_every_trap_in_her_folder(scene: Scene) -> None:
    anns = scene.hub.data / "homes" / "ann" / ".local/share/gpuhub/snapshots"
    secret = scene.hub.data / "secrets.json"
    good, made = await scene.run(scene.eve, "server", TRAPS, others=str(anns), secret=str(secret))
    assert len(made) >= 10
    try:
        async with scene.at_work(scene.eve) as eve:
            listed = (await eve.server_api("GET", "snapshots"))["snapshots"]
            assert [one["complete"] for one in listed if one["id"] == good] == [True]
            traps = {one["id"]: one for one in listed if one["id"] in made}
            assert len(traps) == len(made) - 1, "a link to somewhere else is not even listed"
            assert [one for one in traps.values() if one["complete"] or one["verdicts"]] == []
            text = json.dumps(listed)
            assert "admin_token" not in text
            kernel = scene.eve.notebooks["server"][0]
            for name in made:
                body = {"snapshot": name}
                url = f"{eve.server_url}gpuhub/api/v1/kernels/{kernel}/restore"
                async with eve.http.post(url, json=body, headers=eve.headers) as answer:
                    assert 400 <= answer.status < 500, (name, await answer.text())
    finally:
        await scene.run(scene.eve, "server", CLEAR, made=made)


RUBBISH: list[Any] = [
    "[" * 60_000,
    "\x00\xff not json",
    '{"address": 5}',
    '{"address": {"unix": ["/etc/passwd"]}, "uid": 0}',
    json.dumps({"address": "unix:" + "x" * 60_000}),
    json.dumps({"address": "tcp:203.0.113.9:22"}),
    json.dumps({"address": "unix:/run/../etc/shadow\n", "utilisation_percent": 100, "gpus": 8}),
    '{"address": NaN, "address": 1e400}',
    " " * 70_000,
]
SAYS = """
import os, pathlib
[folder] = [one for one in map(pathlib.Path, folders) if (one / "ready.json").exists()]
true = (folder / "ready.json").read_text()
if kind == "text":
    (folder / "new").write_text(text)
elif kind == "link":
    os.symlink(text, folder / "new")
else:
    os.mkfifo(folder / "new")
os.replace(folder / "new", folder / "ready.json")
result = true
"""


async def test_a_worker_that_says_rubbish_about_itself_troubles_nobody(scene: Scene) -> None:
    folders = [
        str(one) for one in scene.runtime.iterdir() if one.is_dir() and one.stat().st_uid == scene.eve.uid
    ]
    said: list[tuple[str, str]] = [("text", text) for text in RUBBISH]
    said += [("link", "/dev/zero"), ("link", str(scene.hub.data / "secrets.json")), ("fifo", "")]
    true = None
    async with scene.at_work(scene.ann) as ann, scene.at_work(scene.eve) as eve:
        for kind, text in said:
            if true is not None:  # what was there before, so that the next lie finds its folder
                await scene.run(scene.eve, "worker", RESTORES, folders=folders, text=true)
            before = await scene.run(scene.eve, "worker", SAYS, folders=folders, kind=kind, text=text)
            true = before if true is None else true
            seen = await ann.broker("GET", f"leases/{scene.ann.lease}")
            assert seen["state"] == "active"
            own = await eve.broker("GET", f"leases/{scene.eve.lease}")
            assert "admin_token" not in json.dumps(own)
            pools = (await ann.broker("GET", "pools"))["pools"]
            assert pools[0]["free"] == 0, "the lie changed what is taken"
        assert true is not None
        await scene.run(scene.eve, "worker", RESTORES, folders=folders, text=true)

        async def active() -> bool:
            return (await eve.broker("GET", f"leases/{scene.eve.lease}"))["state"] == "active"

        await eventually(active, "eve's lease to be as before", 20)
    assert await scene.run(scene.ann, "worker", "result = treasure[-3:]") == "ann"


RESTORES = """
import os, pathlib
[folder] = [one for one in map(pathlib.Path, folders) if os.path.lexists(one / "ready.json")]
(folder / "new").write_text(text)
os.replace(folder / "new", folder / "ready.json")
result = None
"""


async def test_a_server_that_lies_in_its_acknowledgement_harms_its_owner_at_most(scene: Scene) -> None:
    lies: list[Any] = [
        {"kernels": [{"kernel": "x"}] * 1001},
        {"kernels": "all", "reason": "released"},
        {"reason": "revoked"},
        {"reason": "released", "user": "ann", "lease": scene.ann.lease},
        {"kernels": [{"kernel": scene.ann.notebooks["worker"][0], "outcome": "moved", "bytes": -1}]},
        ["not", "an", "object"],
        None,
    ]
    url = f"{scene.broker_url}leases/{scene.eve.lease}/ack"
    async with scene.at_work(scene.ann) as ann, scene.at_work(scene.eve) as eve:
        for lie in lies:
            headers = {"Authorization": f"token {scene.eve.server_token}"}
            async with eve.http.post(url, json=lie, headers=headers) as answer:
                assert 400 <= answer.status < 500, (lie, answer.status, await answer.text())
        assert (await ann.broker("GET", f"leases/{scene.ann.lease}"))["state"] == "active"
        assert (await eve.broker("GET", f"leases/{scene.eve.lease}"))["state"] == "active"
