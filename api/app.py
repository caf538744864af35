"""The HTTP service: the searcher opened once, the routers that ask it."""

import gc
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.decoder import LazyDecoder
from api.dependencies import LazySearcher, require_key
from api.errors import Problem, add_error_handlers
from api.maintenance import compacting
from api.mcp_server import create_mcp_server, http_sessions
from api.memory import giving_memory_back
from api.metrics import Metrics
from api.middleware.body_limit import BodyLimit
from api.middleware.capacity import Capacity
from api.middleware.conditional import ConditionalAnswers
from api.middleware.head import HeadAsGet
from api.middleware.hosts import LOOPBACK, OwnHosts
from api.middleware.observation import Observation
from api.middleware.security import SecurityHeaders
from api.middleware.time_limit import TimeLimit
from api.openapi import as_openapi_3_0, without_keys
from api.routers import (
    clusters,
    collections,
    docs,
    generations,
    health,
    items,
    landing,
    metrics,
    openapi,
    page,
    parcels,
    previews,
    search,
)
from api.settings import ApiSettings
from api.turns import Turns
from indexer.errors import StorageError

_OBJECTS_BETWEEN_LOOKS: Final = 10_000

_log = logging.getLogger(__name__)


class Service(FastAPI):
    """FastAPI, knowing the schema that all problem responses refer to."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            if not self.state.settings.api_keys:
                document = without_keys(document)
            self.openapi_schema = as_openapi_3_0(document)
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        """The application in its layers, which see the answers to unexpected errors as well."""
        app = super().build_middleware_stack()
        for layer, args, kwargs in reversed(_layers(self.state.settings, self.state.metrics)):
            app = layer(app, *args, **kwargs)
        return app


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
        # A router of its own serves the document, under its own media type. The pages that
        # FastAPI would render from it load scripts from a content delivery network.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # /collections/demo/items is no parcel with an empty id.
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.searcher = LazySearcher(settings, app.state.metrics.count_search)
    app.state.decoder = LazyDecoder(settings)
    app.state.turns = Turns()
    add_error_handlers(app)
    # In the order in which they are looked through, what is asked most first.
    for router in (
        search.router,
        previews.router,
        parcels.router,
        items.router,
        collections.router,
        clusters.router,
        generations.router,
        landing.router,
        page.router,
        openapi.router,
        docs.router,
        health.router,
        metrics.router,
    ):
        app.include_router(router)
    # A mounted application would answer at /mcp/ only. Stateless, it has nothing to GET or DELETE.
    app.router.routes.append(_McpRoute("/mcp", _McpEndpoint(), methods=["POST"], name="mcp"))
    return app


def _layers(settings: ApiSettings, counted: Metrics) -> list[Middleware]:
    """What requests go through from the first to the last, and answers back.

    A layer sees what those after it answer: so refusals are counted and logged, and pages of
    other origins may read them; the limits stand before all work; and what is compressed has
    its entity tag already, which holds for either form.
    """
    return [
        Middleware(Observation, counted),
        Middleware(SecurityHeaders),
        *_for_other_origins(settings),
        *_for_own_hosts(settings),
        Middleware(Capacity, settings.max_concurrent_requests),
        Middleware(TimeLimit, settings.request_timeout_s),
        Middleware(BodyLimit, settings.max_body_bytes),
        Middleware(HeadAsGet),
        Middleware(GZipMiddleware, minimum_size=1024, compresslevel=3),
        Middleware(ConditionalAnswers, private=bool(settings.api_keys)),
    ]


def _for_other_origins(settings: ApiSettings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    # Without keys, whatever page is open in somebody's browser could change something.
    changing = ("PUT", "DELETE") if settings.api_keys else ()
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "HEAD", "POST", *changing),
        allow_headers=("Authorization", "X-API-Key", "X-Request-ID", "If-None-Match"),
        expose_headers=("ETag", "Retry-After", "X-Request-ID"),
    )
    return [cors]


def _for_own_hosts(settings: ApiSettings) -> list[Middleware]:
    # With a key, a page of another origin would have to know it.
    if settings.api_keys or not settings.allowed_hosts or "*" in settings.allowed_hosts:
        return []
    return [Middleware(OwnHosts, (*LOOPBACK, *settings.allowed_hosts))]


class _McpRoute(Route):
    """A route that tells the layers around which one it is, as FastAPI's own do."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it answers."""
        match, found = super().matches(scope)
        return match, {**found, "route": self}


class _McpEndpoint:
    """The MCP server of the running service, behind the service's keys."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await require_key(Request(scope))
        await scope["app"].state.mcp_sessions.handle_request(scope, receive, send)


@contextmanager
def _spared_by_the_collector() -> Iterator[None]:
    """Have Python look less often for cycles of objects that nobody needs.

    It took a fifth of the time of a search: each makes thousands of objects, and every some hundred
    of them had it look through the newest, now and then through all modules of the service.
    """
    usual = gc.get_threshold()
    gc.collect()
    # What is there by now stays.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, *usual[1:])
    yield
    gc.set_threshold(*usual)
    # Extension modules complain at the end of what they find frozen.
    gc.unfreeze()


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
    kept = compacting(settings, lambda: searcher.get().engine)
    async with kept, giving_memory_back(), sessions.run():
        with _spared_by_the_collector():
            yield
    # A process that is at work over an image that nobody waits for is waited for, too.
    await run_in_threadpool(app.state.decoder.close)
    searcher.close()
