"""A small client for the node's own controllers: objects by path, and a cache that follows them.

`Followed` is level-triggered: it keeps the newest state of some kinds and says that something changed, never
what. A controller looks at all of it and puts right what is wrong; a missed or repeated change does no harm.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import httpx

AGAIN_SECONDS = 0.3
WATCH_SECONDS = 240
SECONDS = 30.0


class KubeApi:
    """The API server as one of its clients sees it. Expects the certificates beside the kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        context = ssl.create_default_context(cafile=str(kubeconfig.parent / "ca.crt"))
        context.load_cert_chain(kubeconfig.with_suffix(".crt"), kubeconfig.with_suffix(".key"))
        server = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self._client = httpx.Client(base_url=server, verify=context, trust_env=False, timeout=SECONDS)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the answer; None for what is not there, or is there already. Raises httpx.HTTPError."""
        answer = self._client.request(method, path, json=body)
        if answer.status_code in (404, 409):
            return None
        answer.raise_for_status()
        return dict(answer.json())

    def listed(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """Return the objects of a kind, and the revision of the list."""
        answer = self._client.get(path).raise_for_status().json()
        return answer["items"] or [], answer["metadata"]["resourceVersion"]

    def watch(self, path: str, revision: str) -> httpx.Response:
        """Return an open stream of changes since ``revision``, one JSON object a line."""
        query: dict[str, Any] = {"watch": 1, "resourceVersion": revision, "timeoutSeconds": WATCH_SECONDS}
        request = self._client.build_request(
            "GET", path, params=query, timeout=httpx.Timeout(SECONDS, read=WATCH_SECONDS + SECONDS)
        )
        answer = self._client.send(request, stream=True)
        answer.raise_for_status()
        return answer


class Followed:
    """The newest state of some kinds, by API path. ``changed`` is set whenever any of it changed."""

    def __init__(self, api: KubeApi, *paths: str) -> None:
        self._api = api
        self._objects: dict[str, dict[str, dict[str, Any]]] = {path: {} for path in paths}
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self.changed = threading.Event()
        for path in paths:
            threading.Thread(target=self._follow, args=(path,), daemon=True, name=path).start()

    def all(self, path: str) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._objects[path].values())

    def wait(self) -> None:
        """Return when something changed since the last return, and every kind was listed once."""
        while True:
            self.changed.wait()
            self.changed.clear()
            if len(self._known) == len(self._objects):
                return

    def _follow(self, path: str) -> None:
        while True:
            try:
                items, revision = self._api.listed(path)
                with self._lock:
                    self._objects[path] = {item["metadata"]["uid"]: item for item in items}
                self._known.add(path)
                self.changed.set()
                self._take_changes(path, revision)
            except (httpx.HTTPError, _Expired, ssl.SSLError) as error:
                print(f"{path}: {type(error).__name__} {error}: listed again", flush=True)
            time.sleep(AGAIN_SECONDS)

    def _take_changes(self, path: str, revision: str) -> None:
        answer = self._api.watch(path, revision)
        try:
            for line in answer.iter_lines():
                change = json.loads(line)
                if change["type"] == "ERROR":
                    raise _Expired(change["object"].get("message", ""))
                uid = change["object"]["metadata"]["uid"]
                with self._lock:
                    if change["type"] == "DELETED":
                        self._objects[path].pop(uid, None)
                    else:
                        self._objects[path][uid] = change["object"]
                self.changed.set()
        finally:
            answer.close()


class _Expired(Exception):
    """The revision is too old to go on from."""


def matches(selector: dict[str, Any] | None, labels: dict[str, str] | None) -> bool:
    """Whether labels fit a Kubernetes label selector; an empty selector fits all, None fits nothing."""
    if selector is None:
        return False
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_fits(rule, labels) for rule in selector.get("matchExpressions") or [])


def _fits(rule: dict[str, Any], labels: dict[str, str]) -> bool:
    key, operator, values = rule["key"], rule["operator"], rule.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    if operator == "Exists":
        return key in labels
    return key not in labels
