"""An API server in memory behind the port `Api`: versions, watches, pages, selectors, compare-and-swap.

It keeps the API's promises that the backend relies on, and misbehaves on demand: `away`, `slow_seconds`,
`cut_watches`, `forget_history` (410), `refuse`. `tests/cluster/test_backend.py` runs the same suite
against a real one.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from gpuhub.backends.kubernetes.api import ApiError, Change, Kind, Object, Page

Key = tuple[str, str, str]


class ClusterInMemory:
    """The port `gpuhub.backends.kubernetes.api.Api`."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.asked: list[tuple[str, str]] = []
        """(verb, plural) of every request."""
        self.away = False
        self.slow_seconds = 0.0
        self.refuse: dict[tuple[str, str], ApiError] = {}
        """By (verb, plural): raised instead of done."""
        self.closed = False
        self._version = 100
        self._history: list[tuple[int, str, Object | None, Object]] = []
        """(version, plural, before, after or the last state)"""
        self._floor = 0
        self._news = asyncio.Event()
        self._uids = itertools.count(1)
        self._cut = 0
        self._pages: dict[str, tuple[list[Object], int]] = {}

    # --- misbehaving

    def go_away(self) -> None:
        self.away = True
        self.cut_watches()

    def cut_watches(self) -> None:
        self._cut += 1
        self._wake()

    def forget_history(self) -> None:
        """What happened so far can no longer be watched from."""
        self._floor = self._version
        self._history.clear()
        self._pages.clear()

    # --- the port

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        after: str = "",
    ) -> Page:
        await self._begin("list", kind)
        if after:
            if after not in self._pages:
                raise ApiError(410, "Expired", "the continue token is too old")
            found, version = self._pages.pop(after)
        else:
            found = [
                copy.deepcopy(one)
                for key, one in sorted(self.objects.items())
                if key[0] == kind.plural and namespace in (None, key[1]) and _fits(one, labels, fields)
            ]
            version = self._version
        more = ""
        if limit and len(found) > limit:
            more = f"page-{len(self._pages)}-{version}-{len(found)}"
            self._pages[more] = (found[limit:], version)
            found = found[:limit]
        return Page(found, str(version), more)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        version: str,
        seconds: int,
    ) -> AsyncIterator[Change]:
        await self._begin("watch", kind)
        reached, cut = int(version), self._cut
        if reached < self._floor:
            raise ApiError(410, "Expired", f"too old resource version: {reached} ({self._floor})")
        yield Change("OPENED", {})
        ends = asyncio.get_running_loop().time() + seconds
        while True:
            for number, plural, before, now in list(self._history):
                if number <= reached or plural != kind.plural:
                    continue
                reached = number
                if namespace not in (None, now["metadata"].get("namespace", "")):
                    continue
                change = _change(number, before, now, labels, fields)
                if change is not None:
                    yield change
            left = ends - asyncio.get_running_loop().time()
            if cut != self._cut:
                raise ApiError(0, "WatchBroken", "the connection was cut")
            if left <= 0:
                yield Change("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})
                return
            news = self._news
            try:
                async with asyncio.timeout(left):
                    await news.wait()
            except TimeoutError:
                continue

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        await self._begin("get", kind)
        return copy.deepcopy(self._one(kind, namespace, name))

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        await self._begin("create", kind)
        if kind.plural == "tokenreviews":
            return {"status": {}}
        made = copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        if kind.namespaced:
            metadata["namespace"] = namespace
        key = (kind.plural, metadata.get("namespace", ""), metadata["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f"{kind.plural} {key[2]!r} already exists")
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        metadata["creationTimestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if kind.plural == "pods":
            made.setdefault("status", {"phase": "Pending"})
        return self._store(kind, key, None, made)

    async def replace(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        await self._begin("replace", kind)
        known = self._one(kind, namespace, name)
        if body["metadata"].get("resourceVersion") not in (None, known["metadata"]["resourceVersion"]):
            raise ApiError(409, "Conflict", "the object has been modified")
        return self._store(kind, self._key(kind, namespace, name), known, copy.deepcopy(body))

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        await self._begin("patch", kind)
        name = name.removesuffix("/status")
        known = self._one(kind, namespace, name)
        return self._store(kind, self._key(kind, namespace, name), known, _merged(known, body))

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        await self._begin("delete", kind)
        known = self._one(kind, namespace, name)
        if uid and known["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", "the UID in the precondition does not match")
        runs = known.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        if kind.plural == "pods" and known["spec"].get("nodeName") and grace_seconds != 0 and runs:
            seconds = 30 if grace_seconds is None else grace_seconds
            ends = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
            marks = {"deletionTimestamp": ends, "deletionGracePeriodSeconds": seconds}
            self._store(kind, self._key(kind, namespace, name), known, _merged(known, {"metadata": marks}))
            return
        self._remove(kind.plural, namespace or "", name)

    async def close(self) -> None:
        self.closed = True

    # --- by hand

    def one(self, plural: str, name: str, namespace: str = "") -> Object:
        return self.objects[plural, namespace, name]

    def names(self, plural: str) -> list[str]:
        return [key[2] for key in sorted(self.objects) if key[0] == plural]

    def collect_garbage(self) -> None:
        """Remove what belongs only to objects that are gone."""
        uids = {one["metadata"]["uid"] for one in self.objects.values()}
        for (plural, namespace, name), one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences") or []
            if owners and not any(owner["uid"] in uids for owner in owners):
                self._remove(plural, namespace, name)

    async def _begin(self, verb: str, kind: Kind) -> None:
        self.asked.append((verb, kind.plural))
        if self.slow_seconds:
            await asyncio.sleep(self.slow_seconds)
        else:
            await asyncio.sleep(0)
        if self.away:
            raise ApiError(0, "NoAnswer", "connection refused")
        refusal = self.refuse.get((verb, kind.plural))
        if refusal is not None:
            raise refusal

    def _key(self, kind: Kind, namespace: str | None, name: str) -> Key:
        return kind.plural, (namespace or "") if kind.namespaced else "", name

    def _one(self, kind: Kind, namespace: str | None, name: str) -> Object:
        found = self.objects.get(self._key(kind, namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f'{kind.plural} "{name}" not found')
        return found

    def _store(self, kind: Kind, key: Key, before: Object | None, now: Object) -> Object:
        self._version += 1
        now["metadata"]["resourceVersion"] = str(self._version)
        now.setdefault("kind", kind.kind)
        self.objects[key] = now
        self._history.append((self._version, key[0], before, copy.deepcopy(now)))
        self._wake()
        return copy.deepcopy(now)

    def _remove(self, plural: str, namespace: str, name: str) -> None:
        known = self.objects.pop((plural, namespace, name))
        self._version += 1
        last = copy.deepcopy(known)
        last["metadata"]["resourceVersion"] = str(self._version)
        last["gone"] = True
        self._history.append((self._version, plural, known, last))
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _change(number: int, before: Object | None, now: Object, labels: str, fields: str) -> Change | None:
    was = before is not None and _fits(before, labels, fields)
    gone = now.pop("gone", False) if "gone" in now else False
    now = copy.deepcopy(now)
    if gone:
        return Change("DELETED", now) if was else None
    fits = _fits(now, labels, fields)
    if fits:
        return Change("MODIFIED" if was else "ADDED", now)
    return Change("DELETED", now) if was else None


def _merged(known: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(known) if isinstance(known, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found


def _fits(found: Object, labels: str, fields: str) -> bool:
    own = found["metadata"].get("labels") or {}
    for term in re.split(r",(?![^()]*\))", labels) if labels else []:
        several = re.fullmatch(r"(\S+) in \((.*)\)", term)
        if several:
            if own.get(several[1]) not in several[2].split(","):
                return False
        elif own.get(term.split("=")[0]) != term.split("=")[1]:
            return False
    for term in fields.split(",") if fields else []:
        path, _, value = term.partition("!=" if "!=" in term else "=")
        said: Any = found
        for part in path.split("."):
            said = said.get(part, "") if isinstance(said, dict) else ""
        if ((said or "") == value) == ("!=" in term):
            return False
    return True
