"""``/api``: the OpenAPI document, which names the collections that there are."""

from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError

from api.dependencies import KeyDep, KnownParametersDep
from api.filters import parameters_of
from api.openapi import ITEMS, OPENAPI_JSON, with_collections
from indexer.errors import ParcelleError
from retriever.cql2.properties import Queryable
from retriever.search import ParcelSearcher

_MOST_COLLECTIONS: Final = 50

router = APIRouter(dependencies=[KeyDep, KnownParametersDep])


@router.get("/api", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document."""
    app: FastAPI = request.app
    document = app.openapi()
    taken = {
        one["name"] for one in document["paths"][ITEMS]["get"]["parameters"] if one["in"] == "query"
    }
    parameters = {
        name: [_described(one) for one in parameters_of(found, taken)]
        for name, found in _queryables(request).items()
    }
    return JSONResponse(with_collections(document, parameters), media_type=OPENAPI_JSON)


def _queryables(request: Request) -> dict[str, tuple[Queryable, ...]]:
    try:
        searcher: ParcelSearcher = request.app.state.searcher.get()
        names = [found.name for found in searcher.collections()][:_MOST_COLLECTIONS]
        return {name: searcher.queryables(name) for name in names}
    except (ParcelleError, OperationalError):
        # What the service can do is told before there is anything to do it with.
        return {}


def _described(queryable: Queryable) -> dict[str, Any]:
    return {
        "name": queryable.name,
        "in": "query",
        "required": False,
        "description": f"{queryable.description} Only parcels where it has this value.",
        "schema": {"type": queryable.type} if queryable.type else {},
    }
