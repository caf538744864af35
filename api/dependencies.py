"""What routes ask for: the searcher, a valid key, parameters that exist."""

import hmac
import threading
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request, Security, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.errors import RequestError
from api.settings import ApiSettings
from indexer.settings import Settings
from retriever.search import ParcelSearcher

_BEARER = HTTPBearer(auto_error=False, description="One of the service's keys.")
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="The same, for clients without bearer tokens."
)


class LazySearcher:
    """A searcher that is opened at the first need, and tried again at the next if that fails.

    So a service may be started before its database, and answers once that is there.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._searcher: ParcelSearcher | None = None
        self._opening = threading.Lock()

    def get(self) -> ParcelSearcher:
        """The open searcher.

        Raises:
            StorageError: If there is no database yet, or it cannot be used as it is.
        """
        with self._opening:
            if self._searcher is None:
                self._searcher = ParcelSearcher.open(self._settings)
            return self._searcher

    def close(self) -> None:
        """Let go of the database; the next need opens it again."""
        with self._opening:
            if self._searcher is not None:
                self._searcher.close()
                self._searcher = None


def _searcher(request: Request) -> ParcelSearcher:
    lazy: LazySearcher = request.app.state.searcher
    return lazy.get()


async def _require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    header: Annotated[str | None, Security(_HEADER)],
) -> None:
    settings: ApiSettings = request.app.state.settings
    if not settings.api_keys:
        return
    given = [] if bearer is None else [bearer.credentials]
    given += [] if header is None else [header]
    # All are compared, in constant time each, so that the time taken tells nothing. Header bytes
    # arrive decoded as Latin-1.
    agreements = [
        hmac.compare_digest(one.encode("latin-1"), key.get_secret_value().encode())
        for one in given
        for key in settings.api_keys
    ]
    if not any(agreements):
        raise RequestError(
            HTTPStatus.UNAUTHORIZED,
            kind="unauthorized",
            detail="Send a key of the service, as Authorization: Bearer KEY or X-API-Key: KEY.",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def require_key(request: Request) -> None:
    """Let a request pass as ``KeyDep`` does, where no route reads the headers.

    Raises:
        RequestError: If keys are set and the request carries none of them.
    """
    await _require_key(request, await _BEARER(request), await _HEADER(request))


async def _refuse_unknown_parameters(request: Request) -> None:
    """OGC API Features, requirement /req/core/query-param-unknown: answer them with 400."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    fields = get_flat_params(route.dependant)
    allowed = [field.alias for field in fields if isinstance(field.field_info, params.Query)]
    unknown = sorted(set(request.query_params) - set(allowed))
    if unknown:
        named = ", ".join(name[:60] for name in unknown[:5])
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            kind="unknown-parameter",
            detail=f"Unknown parameter {named}; "
            + (f"this route takes {', '.join(allowed)}." if allowed else "this route takes none."),
        )


SearcherDep = Annotated[ParcelSearcher, Depends(_searcher)]
"""The one searcher that all doors ask."""

KeyDep = Depends(_require_key)
"""Lets a request pass that carries a key, or every request where no keys are set."""

KnownParametersDep = Depends(_refuse_unknown_parameters)
"""Refuses query parameters that the route does not document."""
