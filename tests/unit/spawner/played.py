"""A cluster's API as KubeSpawner uses it, played in this process: lists, watches, creates, deletes.

What happens to a pod after it was made is a behaviour given by the test (`Runs`, `CannotFetch`, …). Wrong
answers are played too: `refusals` (what the API says to a request) and `silent` (it does not answer).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

Pod = dict[str, Any]
WALLS = ("rolebindings", "networkpolicies", "resourcequotas", "limitranges")
Behaviour = Callable[["PlayedCluster", Pod], Awaitable[None]]
WATCH_SECONDS = 1.0


class PlayedCluster:
    """Objects by kind and ``namespace/name``. ``behaviour`` says what becomes of a new pod."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("pods", "events", "persistentvolumeclaims", "namespaces", *WALLS)
        }
        self.asked: list[tuple[str, str]] = []
        """(method, kind) of each request."""
        self.behaviour: Behaviour = runs
        self.refusals: dict[tuple[str, str], tuple[int, str]] = {}
        self.refused_first: dict[tuple[str, str], tuple[int, str]] = {}
        """Refused once."""
        self.silent = False
        self.lists_lag = False
        self.end_seconds = 0.0
        self.deletions: list[tuple[str, int]] = []
        self._version = 0
        self._changed = asyncio.Event()
        self._log: list[tuple[int, str, str, dict[str, Any]]] = []
        self._plays: set[asyncio.Task[None]] = set()

    # --- for tests

    @property
    def pods(self) -> dict[str, Pod]:
        return self.objects["pods"]

    def put(self, kind: str, entry: dict[str, Any], what: str = "MODIFIED") -> None:
        """Store and tell the watchers."""
        self._version += 1
        entry["metadata"]["resourceVersion"] = str(self._version)
        self.objects[kind][_key(entry)] = entry
        self._tell(what, kind, entry)

    def remove(self, kind: str, key: str) -> None:
        entry = self.objects[kind].pop(key, None)
        if entry is not None:
            self._version += 1
            self._tell("DELETED", kind, entry)

    def status(self, pod: Pod, **status: Any) -> None:
        pod["status"] = {**pod["status"], **status}
        self.put("pods", pod)

    def waits(self, pod: Pod, reason: str, message: str = "") -> None:
        """The notebook's container waits."""
        self.container(pod, {"waiting": {"reason": reason, "message": message}})

    def container(self, pod: Pod, state: dict[str, Any], *, ready: bool = False) -> None:
        container = {
            "name": "notebook",
            "image": pod["spec"]["containers"][0]["image"],
            "state": state,
            "ready": ready,
            "restartCount": 0,
        }
        self.status(pod, containerStatuses=[container])

    def event(self, pod: Pod, reason: str, message: str = "") -> None:
        self._version += 1
        where = pod["metadata"]
        self.put(
            "events",
            {
                "metadata": {
                    "namespace": where["namespace"],
                    "name": f"e{self._version}",
                    "uid": str(self._version),
                },
                "involvedObject": {"kind": "Pod", "name": where["name"], "uid": where["uid"]},
                "reason": reason,
                "message": message,
                "type": "Normal",
                "lastTimestamp": None,
                "eventTime": datetime.now(UTC).isoformat(),
            },
        )

    # --- the API

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[Path]:
        """Serve; yields a kubeconfig."""
        app = web.Application(middlewares=[self._judge])
        for kind in ("pods", "events", "persistentvolumeclaims"):
            app.router.add_get(f"/api/v1/{{kind:{kind}}}", self._list)
            app.router.add_get(f"/api/v1/namespaces/{{namespace}}/{{kind:{kind}}}", self._list)
            app.router.add_post(f"/api/v1/namespaces/{{namespace}}/{{kind:{kind}}}", self._create)
        app.router.add_post("/api/v1/{kind:namespaces}", self._create)
        app.router.add_get("/api/v1/{kind:namespaces}/{name}", self._get)
        for root in ("/api", "/apis/{group}"):
            path = f"{root}/{{version}}/namespaces/{{namespace}}/{{kind:{'|'.join(WALLS)}}}/{{name}}"
            app.router.add_patch(path, self._apply)
        app.router.add_delete("/api/v1/namespaces/{namespace}/{kind:pods}/{name}", self._delete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        config = folder / "kubeconfig"
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )
        try:
            yield config
        finally:
            for play in self._plays:
                play.cancel()
            await runner.cleanup()

    @web.middleware
    async def _judge(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.silent:
            return _status(503, "the server is currently unable to handle the request")
        asked = request.method, request.match_info.get("kind", "")
        self.asked.append(asked)
        refusal = self.refusals.get(asked) or self.refused_first.pop(asked, None)
        if refusal is not None:
            return _status(*refusal)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if request.query.get("watch", "").lower() == "true":
            return await self._watch(request, kind)
        items = [entry for entry in self.objects[kind].values() if _fits(entry, request)]
        if self.lists_lag and "fieldSelector" not in request.query:
            items = []
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        seen = int(request.query["resourceVersion"])
        end = asyncio.get_running_loop().time() + WATCH_SECONDS
        while (left := end - asyncio.get_running_loop().time()) > 0:
            changed = self._changed
            seen, since = self._version, seen
            for version, what, of, entry in list(self._log):
                if since < version <= seen and of == kind and _fits(entry, request):
                    line = json.dumps({"type": what, "object": entry})
                    try:
                        await answer.write(line.encode() + b"\n")
                    except ConnectionError:
                        return answer
            try:
                await asyncio.wait_for(changed.wait(), left)
            except TimeoutError:
                break
        return answer

    async def _create(self, request: web.Request) -> web.Response:
        kind, entry = request.match_info["kind"], await request.json()
        entry["metadata"].setdefault("namespace", request.match_info.get("namespace", ""))
        if _key(entry) in self.objects[kind]:
            return _status(409, f"{kind} {entry['metadata']['name']} already exists")
        entry["metadata"]["uid"] = f"uid-{self._version + 1}"
        if kind == "pods":
            entry["status"] = {"phase": "Pending"}
        self.put(kind, entry, "ADDED")
        if kind == "pods":
            play = asyncio.ensure_future(self.behaviour(self, entry))
            self._plays.add(play)
        return web.json_response(entry, status=201)

    async def _get(self, request: web.Request) -> web.Response:
        found = self.objects[request.match_info["kind"]].get(f"/{request.match_info['name']}")
        return _status(404, "not found") if found is None else web.json_response(found)

    async def _apply(self, request: web.Request) -> web.Response:
        """Server-side apply."""
        if request.content_type != "application/apply-patch+yaml" or "fieldManager" not in request.query:
            return _status(415, "no apply")
        entry = await request.json()
        self.put(request.match_info["kind"], entry)
        return web.json_response(entry)

    async def _delete(self, request: web.Request) -> web.Response:
        key = f"{request.match_info['namespace']}/{request.match_info['name']}"
        pod = self.pods.get(key)
        if pod is None:
            return _status(404, "not found")
        grace = int(request.query["gracePeriodSeconds"])
        self.deletions.append((pod["metadata"]["name"], grace))
        if "deletionTimestamp" not in pod["metadata"]:
            pod["metadata"]["deletionTimestamp"] = "now"
            self.put("pods", pod)
            asyncio.get_running_loop().call_later(self.end_seconds, self.remove, "pods", key)
        return web.json_response({"kind": "Status", "status": "Success"})

    def _tell(self, what: str, kind: str, entry: dict[str, Any]) -> None:
        self._log.append((self._version, what, kind, json.loads(json.dumps(entry))))
        self._changed.set()
        self._changed = asyncio.Event()


# --- behaviours


async def runs(cluster: PlayedCluster, pod: Pod) -> None:
    """A machine is found, the image is there, the server listens."""
    cluster.status(pod, conditions=[{"type": "PodScheduled", "status": "True"}])
    cluster.event(pod, "Scheduled")
    cluster.waits(pod, "ContainerCreating")
    await asyncio.sleep(0.05)
    cluster.event(pod, "Pulled")
    cluster.status(pod, phase="Running", podIP="127.0.0.1")
    cluster.container(pod, {"running": {}}, ready=True)


async def never_moves(cluster: PlayedCluster, pod: Pod) -> None:
    """Nothing happens to it."""


def waits_for(reason: str, message: str = "") -> Behaviour:
    """Its container waits, for ever."""

    async def behaviour(cluster: PlayedCluster, pod: Pod) -> None:
        cluster.status(pod, conditions=[{"type": "PodScheduled", "status": "True"}])
        cluster.event(pod, "Pulling")
        cluster.waits(pod, reason, message)

    return behaviour


def finds_no_room(message: str = "0/1 nodes are available: 1 Insufficient cpu.") -> Behaviour:
    async def behaviour(cluster: PlayedCluster, pod: Pod) -> None:
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        cluster.status(pod, conditions=[said])

    return behaviour


def ends(code: int, message: str, reason: str = "Error") -> Behaviour:
    """It runs, and its program ends."""

    async def behaviour(cluster: PlayedCluster, pod: Pod) -> None:
        await runs(cluster, pod)
        await asyncio.sleep(0.3)
        cluster.container(pod, {"terminated": {"exitCode": code, "reason": reason, "message": message}})

    return behaviour


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _key(entry: dict[str, Any]) -> str:
    where = entry["metadata"]
    return f"{where.get('namespace', '')}/{where['name']}"


def _fits(entry: dict[str, Any], request: web.Request) -> bool:
    where = entry["metadata"]
    if "namespace" in request.match_info and where.get("namespace") != request.match_info["namespace"]:
        return False
    for one in filter(None, request.query.get("labelSelector", "").split(",")):
        key, _, value = one.partition("=")
        if where.get("labels", {}).get(key) != value:
            return False
    for one in filter(None, request.query.get("fieldSelector", "").split(",")):
        key, _, value = one.partition("=")
        found: Any = entry
        for part in key.split("."):
            found = found.get(part, {})
        if found != value:
            return False
    return True


def _status(code: int, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "message": message, "code": code}, status=code
    )
