"""The app: resources, refusals, limits and sign-in put together, in this order from the outside in.

`LastResort` (errors) around `BodyLimit` (bodies) around FastAPI. Nothing here knows how the broker was
made: `gpuhub.api.wiring` hands it over in `Parts`.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from gpuhub.api import errors, events, health, leases, me, nodes, page, pools
from gpuhub.api.bodies import BodyLimit
from gpuhub.api.openapi import DESCRIPTION, REFUSALS, document
from gpuhub.api.parts import Parts
from gpulease import __version__

API = "api/v1"


def make_app(parts: Parts) -> ASGIApp:
    """Return the app that answers under the service's prefix."""
    prefix = parts.signin.prefix.rstrip("/")
    app = bare_app(prefix)
    app.state.parts = parts
    app.include_router(health.router, prefix=prefix)
    app.include_router(page.router, prefix=prefix)
    described = JSONResponse(document(app))

    async def openapi() -> JSONResponse:
        return described

    app.add_api_route(f"{prefix}/{API}/openapi.json", openapi, include_in_schema=False)
    return errors.LastResort(BodyLimit(app))


def bare_app(prefix: str) -> FastAPI:
    """Return the app with its resources alone: enough to describe it."""
    app = FastAPI(
        title="gpuhub: GPU leases",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=REFUSALS,
    )
    errors.install(app)
    api = APIRouter()
    for resource in (me, pools, leases, events, nodes):
        api.include_router(resource.router)
    app.include_router(api, prefix=f"{prefix}/{API}")
    return app
