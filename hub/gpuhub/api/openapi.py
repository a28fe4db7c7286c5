"""The OpenAPI document: what is served, and what the JupyterLab extension makes its types from.

``python -m gpuhub.api --openapi`` adds the shapes of a person's server (`gpulease.session`), which has no
document of its own.
"""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from gpulease import session
from gpulease.events import Event
from gpulease.models import ErrorBody, Incoming, Outgoing, PoolList

DESCRIPTION = """\
Request, watch, keep and release leases on GPUs.

Every request carries a token of the hub (`Authorization: Bearer …`): a person's, or a server's own. \
Every refusal is an `ErrorBody` with a sentence and a hint. Times are UTC; units are in the names; bodies \
are JSON of at most 64 KiB; unknown fields of a request are refused, unknown fields of an answer are to be \
ignored.
"""

REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "Refused: `message` says why, `hint` what to do."},
    "5XX": {"model": ErrorBody, "description": "A part does not answer; trying again helps."},
}

REF = "#/components/schemas/{model}"


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document of ``app``'s resources."""
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    components["securitySchemes"] = {
        "hubToken": {"type": "http", "scheme": "bearer", "description": "A token of the hub."}
    }
    found["security"] = [{"hubToken": []}]
    components.setdefault("schemas", {}).update(schemas([Event, PoolList]))
    return found


def with_session(found: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the shapes of `gpulease.session` beside the broker's."""
    merged = found["components"]["schemas"] | schemas(session_models())
    components = found["components"] | {"schemas": dict(sorted(merged.items()))}
    return found | {"components": components}


def session_models() -> list[type[BaseModel]]:
    """Return what `gpulease.session` itself defines."""
    return [
        model
        for _, model in inspect.getmembers(session, inspect.isclass)
        if issubclass(model, Incoming | Outgoing) and model.__module__ == session.__name__
    ]


def schemas(models: list[type[BaseModel]]) -> dict[str, Any]:
    """Return JSON schemas by name: of what goes out as it is written, of what comes in as it is read."""
    asked: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation" if issubclass(model, Incoming) else "serialization") for model in models
    ]
    _, found = models_json_schema(asked, ref_template=REF)
    defined: dict[str, Any] = found.get("$defs", {})
    return defined
