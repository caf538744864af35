"""Error class to HTTP status; every error is one ``application/problem+json`` (RFC 9457)."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api import request_ids
from indexer.errors import (
    ConflictError,
    GenerationMismatchError,
    ImageryError,
    InvalidInputError,
    NotFoundError,
    ParcelleError,
    ParcelsError,
    StorageError,
    WeightsError,
)

_log = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"

STATUS: Final[dict[type[ParcelleError], HTTPStatus]] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    InvalidInputError: HTTPStatus.BAD_REQUEST,
    ImageryError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ParcelsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    WeightsError: HTTPStatus.SERVICE_UNAVAILABLE,
    GenerationMismatchError: HTTPStatus.CONFLICT,
    ConflictError: HTTPStatus.CONFLICT,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""One line for each branch of the error tree."""

# Seconds. A server that was restarted answers again within a few.
_SOON: Final = {"Retry-After": "5"}

_HTTP_KINDS: Final = {
    HTTPStatus.NOT_FOUND: "route-not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
}


class Problem(BaseModel):
    """What went wrong and what to do about it, in the form of RFC 9457."""

    type: str = Field(description="The kind as a URN.", examples=["urn:parcelle:problem:invalid-k"])
    title: str = Field(description="The kind in words.", examples=["Invalid k"])
    status: int = Field(description="The HTTP status.", examples=[400])
    detail: str = Field(
        description="The thing, what was found, and what to do.",
        examples=["k is 0; ask for at least 1 and at most 1000 matches."],
    )
    instance: str = Field(
        description="The path that was asked.",
        examples=["/collections/demo/items/demo-012/similar"],
    )
    kind: str = Field(
        description="A stable word that programs may rely on.", examples=["invalid-k"]
    )
    request_id: str | None = Field(
        default=None,
        description="The request's `X-Request-ID`; the service's log tells more under it.",
        examples=["0f8fad5bd9cb469fa16570867728950e"],
    )


class RequestError(Exception):
    """A request that fails in the HTTP door itself, before any question is put.

    Args:
        status: Of the response.
        kind: A stable word, as ``ParcelleError`` has it.
        detail: What was found and what to do.
        headers: To be sent with the problem.
    """

    def __init__(
        self,
        status: HTTPStatus,
        *,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says about errors: these statuses, and that any other looks the same."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described: dict[int | str, dict[str, Any]] = {
        int(status): {"description": status.phrase, "content": content} for status in statuses
    }
    return described | {"default": {"description": "Any other problem", "content": content}}


PROBLEMS_OF_READING: Final = problem_responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
"""Of the routes that tell of something stored."""


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer every error with a problem."""
    app.add_exception_handler(ParcelleError, _on_parcelle_error)
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    for lost in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(lost, _on_lost_database)
    app.add_exception_handler(Exception, _on_unexpected)


async def refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem before any route is asked.

    Args:
        error: What to say.
        scope: Of the request.
        receive: Of the request.
        send: Where the answer goes.
    """
    response = _problem(Request(scope), error.status, error.kind, error.detail, error.headers)
    await response(scope, receive, send)


def status_of(error: ParcelleError) -> HTTPStatus:
    """The HTTP status of an error, by its class or the nearest one above."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR


async def _on_parcelle_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ParcelleError)
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("%s: %s (%s)", _asked(request), error.message, error.kind)
    headers = _SOON if error.kind in ("database-unreachable", "milvus-unreachable") else None
    return _problem(request, status, error.kind, error.told, headers)


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return _problem(request, error.status, error.kind, error.detail, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    detail = " ".join(_complaint(found) for found in error.errors())
    return _problem(request, HTTPStatus.BAD_REQUEST, "invalid-request", detail)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    kind = _HTTP_KINDS.get(status, status.phrase.lower().replace(" ", "-"))
    detail = f"{error.detail}."
    headers = dict(error.headers or {})
    if status is HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {_path(request)}; GET / tells what there is."
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "GET")
        detail = f"{_path(request)} does not answer {request.method}; use {allowed}."
        # No route says so, since a layer around them all answers HEAD.
        headers["Allow"] = f"{allowed}, HEAD" if "GET" in allowed else allowed
    return _problem(request, status, kind, detail, headers)


async def _on_disconnect(request: Request, error: Exception) -> JSONResponse:
    """For the log alone: nobody is there to read it."""
    detail = "The client went away before its request was read."
    return _problem(request, HTTPStatus.BAD_REQUEST, "client-disconnected", detail)


async def _on_lost_database(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s: the database does not answer: %s", _asked(request), error)
    lost = StorageError("The database does not answer.", kind="database-unreachable")
    return _problem(request, status_of(lost), lost.kind, lost.told, _SOON)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises it on to the server, which logs the traceback.
    _log.error("%s: unexpected %s", _asked(request), type(error).__name__)
    detail = "The service failed unexpectedly; its log says where. The request may be fine."
    return _problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail)


def _problem(
    request: Request,
    status: HTTPStatus,
    kind: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        type=f"urn:parcelle:problem:{kind}",
        title=kind.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        instance=_path(request),
        kind=kind,
        request_id=request_ids.current(),
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status,
        # What is missing or too much now may not be a minute later.
        headers={"Cache-Control": "no-store", **(headers or {})},
        media_type=PROBLEM_JSON,
    )


def _complaint(found: Mapping[str, Any]) -> str:
    """One parameter's fault: its name, what was given, what was expected."""
    # ("query", "k"), or ("query", "crop", 0) for the first of several.
    name = found["loc"][1] if len(found["loc"]) > 1 else "of the request"
    if found["type"] == "extra_forbidden":
        return f"There is no parameter {name}; /api tells those that there are."
    given = found.get("input")
    value = f" is {given[:60]!r}" if isinstance(given, str) else ""
    return f"Parameter {name}{value}: {found['msg']}."


def _path(request: Request) -> str:
    """The path without the query, which may hold what is not to be repeated."""
    return quote(request.scope["path"])


def _asked(request: Request) -> str:
    return f"{request.method} {_path(request)}"
