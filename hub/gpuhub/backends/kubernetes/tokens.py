"""Whose token it is that somebody shows us, by the cluster's own word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpuhub.backends.kubernetes.api import TOKEN_REVIEWS, Api, Object

NODE, POD = "authentication.kubernetes.io/node-name", "authentication.kubernetes.io/pod-name"
MOST_TOKEN_BYTES = 16 * 1024


@dataclass(frozen=True)
class Reviewed:
    """A token that is valid for us."""

    username: str
    """``system:serviceaccount:NAMESPACE:NAME`` for a pod's."""
    node: str | None
    """Where the pod that it was made for runs. None: it is not bound to one, or the cluster is too old."""
    pod: str | None


async def review_token(api: Api, token: str, audience: str) -> Reviewed | None:
    """Return whose ``token`` it is; None where it is not valid for ``audience``. Raises `BackendError`."""
    if not token or len(token) > MOST_TOKEN_BYTES:
        return None
    body: Object = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    status = (await api.create(TOKEN_REVIEWS, None, body)).get("status") or {}
    user = status.get("user") or {}
    if status.get("authenticated") is not True or audience not in (status.get("audiences") or []):
        return None
    if not isinstance(user.get("username"), str):
        return None
    extra = user.get("extra") or {}
    return Reviewed(user["username"], _first(extra, NODE), _first(extra, POD))


def _first(extra: Mapping[str, Any], name: str) -> str | None:
    values = extra.get(name)
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str):
        return values[0] or None
    return None
