"""The HTTP service: the searcher opened once, the routers that ask it."""

import importlib.metadata
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.dependencies import LazySearcher, require_key
from api.errors import Problem, add_error_handlers
from api.mcp_server import create_mcp_server, http_sessions
from api.routers import collections, health, landing, parcels
from api.settings import ApiSettings
from indexer.errors import StorageError

_log = logging.getLogger(__name__)


class Service(FastAPI):
    """FastAPI, knowing the schema that all problem responses refer to."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        return document


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """Build the service.

    Args:
        settings: Where the index is and who may ask; None reads the environment.
    """
    settings = settings or ApiSettings()
    app = Service(
        title="Parcelle",
        description="Which agricultural parcels look like this one, and what state is it in?",
        version=importlib.metadata.version("parcelle"),
        lifespan=_lifespan,
        # The landing page's router serves the document, under its own media type. The pages that
        # FastAPI would render from it load scripts from a content delivery network.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # /collections/demo/items is no parcel with an empty id.
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.searcher = LazySearcher(settings)
    add_error_handlers(app)
    for router in (landing.router, health.router, collections.router, parcels.router):
        app.include_router(router)
    # A mounted application would answer at /mcp/ only. Stateless, it has nothing to GET or DELETE.
    app.router.routes.append(Route("/mcp", _McpEndpoint(), methods=["POST"], name="mcp"))
    return app


class _McpEndpoint:
    """The MCP server of the running service, behind the service's keys."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await require_key(Request(scope))
        await scope["app"].state.mcp_sessions.handle_request(scope, receive, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # FAISS's threads need no setting here: it searches a single query in the thread that asks.
    searcher: LazySearcher = app.state.searcher
    try:
        await run_in_threadpool(searcher.get)
    except (StorageError, OperationalError) as error:
        _log.warning("Serving without an index until there is one: %s", error)
    settings: ApiSettings = app.state.settings
    # They run once, and an application may be started again.
    sessions = http_sessions(create_mcp_server(searcher.get), keys=bool(settings.api_keys))
    app.state.mcp_sessions = sessions
    async with sessions.run():
        yield
    searcher.close()
