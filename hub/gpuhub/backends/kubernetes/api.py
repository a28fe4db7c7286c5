"""The Kubernetes API as this backend needs it: plain objects in, plain objects out, one error.

Promises: every call ends within its time limit; every failure, also of the network, is an `ApiError`
that says whether trying again may help; objects are JSON as the server sent it, so that an unknown field
or a newer server breaks nothing. `Api` is the port; `ClusterApi` the real one over ``kubernetes.aio``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from gpuhub.backends.base import BackendError

CALL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
WATCH_SLACK_SECONDS = 10.0
"""How long after its announced end a silent watch is held for dead."""
MOST_LINE_BYTES = 16 * 1024 * 1024
CONNECTIONS = 64

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A resource of the API."""

    version: str
    """``v1`` or ``group/v1``."""
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of one object, of a namespace's, or (no namespace) of all."""
        root = f"/api/{self.version}" if "/" not in self.version else f"/apis/{self.version}"
        place = f"/namespaces/{namespace}" if namespace is not None and self.namespaced else ""
        return f"{root}{place}/{self.plural}" + ("" if name is None else f"/{name}")


NAMESPACES = Kind("v1", "namespaces", "Namespace", namespaced=False)
NODES = Kind("v1", "nodes", "Node", namespaced=False)
PODS = Kind("v1", "pods", "Pod")
SECRETS = Kind("v1", "secrets", "Secret")
EVENTS = Kind("v1", "events", "Event")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
LEASES = Kind("coordination.k8s.io/v1", "leases", "Lease")
TOKEN_REVIEWS = Kind("authentication.k8s.io/v1", "tokenreviews", "TokenReview", namespaced=False)


class ApiError(BackendError):
    """The API server refused, or did not answer (``status`` 0). The message is the server's own."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{status or 'no answer'} {reason}: {message}"[:2000])
        self.status, self.reason, self.message = status, reason, message
        self.retry_after_seconds = retry_after_seconds

    @property
    def away(self) -> bool:
        """Whether the same may work later: nobody answered, or somebody who was not able to."""
        return self.status == 0 or self.status == 429 or self.status >= 500


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[Object]
    version: str
    more: str = ""
    """Where the next page begins; empty: this was the last."""


@dataclass(frozen=True)
class Change:
    """What a watch says. ``OPENED`` comes first, and only says that the stream is there."""

    what: Literal["OPENED", "ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class Api(Protocol):
    """What is asked of the API server. Every method raises `ApiError`."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        after: str = "",
    ) -> Page: ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        version: str,
        seconds: int,
    ) -> AsyncIterator[Change]: ...

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object: ...
    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object: ...
    async def replace(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object: ...

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        """Merge-patch: what is in ``body`` replaces what is there."""
        ...

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None: ...

    async def close(self) -> None: ...


class ClusterApi:
    """The API server of a cluster."""

    def __init__(self, client: kubernetes_client.ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, kubeconfig: Path | None) -> ClusterApi:
        """Read how to reach it; None: as the pod that this is. Raises `OSError`. Nothing is sent yet."""
        configuration = kubernetes_client.Configuration()
        try:
            if kubeconfig is None:
                kubernetes_config.load_incluster_config(client_configuration=configuration)
            else:
                await kubernetes_config.load_kube_config(
                    str(kubeconfig), client_configuration=configuration, persist_config=False
                )
        except kubernetes_config.ConfigException as error:
            raise OSError(f"The cluster cannot be reached: {error}") from error
        configuration.connection_pool_maxsize = CONNECTIONS
        configuration.retries = None  # how often, and after how long, is decided here
        return cls(kubernetes_client.ApiClient(configuration))

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
        query = _query(labelSelector=labels, fieldSelector=fields, limit=limit or "")
        if after:
            query.append(("continue", after))
        answer = await self._call("GET", kind.path(namespace), query=query)
        metadata = answer.get("metadata") or {}
        return Page(
            list(answer.get("items") or []),
            str(metadata.get("resourceVersion", "")),
            str(metadata.get("continue") or ""),
        )

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
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            labelSelector=labels,
            fieldSelector=fields,
            resourceVersion=version,
            timeoutSeconds=seconds,
        )
        limit = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_SECONDS, sock_read=seconds + WATCH_SLACK_SECONDS
        )
        response = await self._send("GET", kind.path(namespace), query=query, timeout=limit)
        try:
            yield Change("OPENED", {})
            async for line in _lines(response):
                said = json.loads(line)
                if said.get("type") == "ERROR":
                    raise _from_status(said.get("object"), 500)
                yield Change(said["type"], said["object"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            raise ApiError(0, "WatchBroken", str(error) or type(error).__name__) from error
        finally:
            response.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return await self._call("GET", kind.path(namespace, name))

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        return await self._call("POST", kind.path(namespace), body=body)

    async def replace(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        return await self._call("PUT", kind.path(namespace, name), body=body)

    async def patch(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        content = "application/merge-patch+json"
        return await self._call("PATCH", kind.path(namespace, name), body=body, content=content)

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        await self._call("DELETE", kind.path(namespace, name), body=body)

    async def close(self) -> None:
        await self._client.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        limit = aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS)
        response = await self._send(method, path, query=query, body=body, content=content, timeout=limit)
        try:
            answer = json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "NoAnswer", str(error) or type(error).__name__) from error
        finally:
            response.release()
        if not isinstance(answer, dict):
            raise ApiError(0, "NoAnswer", "the answer is no object")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Object | None = None,
        content: str = "application/json",
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        try:
            request = await self._client.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query or []),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            sent = await self._client.call_api(*request, _request_timeout=timeout)
            response: aiohttp.ClientResponse = sent.response
            if response.status < 400:
                return response
            text = await response.read()
            response.release()
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise ApiError(0, "NoAnswer", str(error) or type(error).__name__) from error
        raise _from_body(text, response.status, response.headers)


def _query(**values: object) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items() if value != ""]


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, however long (aiohttp's own reader gives up at 64 KiB)."""
    kept = bytearray()
    async for chunk in response.content.iter_any():
        kept += chunk
        while (end := kept.find(b"\n")) >= 0:
            line = bytes(kept[:end])
            del kept[: end + 1]
            if line.strip():
                yield line
        if len(kept) > MOST_LINE_BYTES:
            raise ValueError("a line of the watch has no end")


def _from_body(text: bytes, status: int, headers: Mapping[str, str]) -> ApiError:
    try:
        after = float(headers.get("Retry-After", ""))
    except ValueError:
        after = None
    try:
        found = json.loads(text)
    except ValueError:
        found = {"message": text[:500].decode("utf-8", "replace")}
    error = _from_status(found, status)
    error.retry_after_seconds = after
    return error


def _from_status(found: Any, status: int) -> ApiError:
    said = found if isinstance(found, dict) else {}
    return ApiError(
        int(said.get("code") or status), str(said.get("reason") or ""), str(said.get("message") or "")
    )
