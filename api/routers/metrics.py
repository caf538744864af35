"""``/metrics``: what the service counts, for Prometheus."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.dependencies import KeyDep, KnownParametersDep, LazySearcher
from api.errors import problem_responses
from api.features import described
from api.metrics import Metrics
from indexer.generations.manifest import Manifest

_TEXT: Final = {"type": "string"}

router = APIRouter(tags=["health"], dependencies=[KeyDep, KnownParametersDep])


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=problem_responses(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED)
    | described("The metrics of all processes", "text/plain", _TEXT),
)
def metrics(request: Request) -> Response:
    """Requests, searches and the index that answers, in the text format of Prometheus."""
    lazy: LazySearcher = request.app.state.searcher
    counted: Metrics = request.app.state.metrics

    def published() -> Iterator[Manifest]:
        return (opened.manifest for opened in lazy.get().generations())

    return Response(counted.exposition(published), media_type=CONTENT_TYPE_LATEST)
