"""What routes ask for: the searcher, a valid key, parameters that exist."""

import hmac
import threading
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request, Security, params
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.errors import RequestError
from api.settings import ApiSettings
from api.timing import TimedSearcher
from api.turns import Turns
from indexer.catalog.database import open_catalog
from indexer.settings import Settings
from retriever.search import ParcelSearcher

_BEARER = HTTPBearer(auto_error=False, description="One of the service's keys.")
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="The same, for clients without bearer tokens."
)


class LazySearcher:
    """A searcher that is opened at the first need, and tried again at the next if that fails.

    So a service may be started before its database, and answers once that is there.

    Args:
        settings: Where the index is.
        on_search: Told how many seconds each search for similar parcels took.
    """

    def __init__(
        self, settings: Settings, on_search: Callable[[float], None] | None = None
    ) -> None:
        self._settings = settings
        self._on_search = on_search
        self._searcher: ParcelSearcher | None = None
        self._opening = threading.Lock()

    @property
    def opened(self) -> ParcelSearcher | None:
        """The searcher, if it is open already."""
        return self._searcher

    def get(self) -> ParcelSearcher:
        """The searcher, opened if need be.

        Raises:
            StorageError: If there is no database yet, or it cannot be used as it is.
        """
        with self._opening:
            if self._searcher is None:
                self._searcher = self._opened()
            return self._searcher

    def _opened(self) -> ParcelSearcher:
        if self._on_search is None:
            return ParcelSearcher.open(self._settings)
        return TimedSearcher(self._settings, open_catalog(self._settings), self._on_search)

    def close(self) -> None:
        """Let go of the database; the next need opens it again."""
        with self._opening:
            if self._searcher is not None:
                self._searcher.close()
                self._searcher = None


async def _searcher(request: Request) -> ParcelSearcher:
    lazy: LazySearcher = request.app.state.searcher
    # A thread only to open it: each change of threads costs a request a tenth of a millisecond.
    opened = lazy.opened
    return await run_in_threadpool(lazy.get) if opened is None else opened


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


def known_parameters(request: Request) -> tuple[str, ...]:
    """The query parameters that a request's route documents."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    # Whatever application it is of, a path of ours has the same parameters.
    known = _KNOWN_PARAMETERS.get(route.path_format)
    if known is None:
        fields = get_flat_params(route.dependant)
        known = tuple(one.alias for one in fields if isinstance(one.field_info, params.Query))
        _KNOWN_PARAMETERS[route.path_format] = known
    return known


# To find them takes as long as to check them a hundred times.
_KNOWN_PARAMETERS: dict[str, tuple[str, ...]] = {}


def refuse_unknown_parameters(request: Request, besides: Collection[str] = ()) -> None:
    """Refuse what the route does not know: OGC API Features, /req/core/query-param-unknown.

    Args:
        request: To a route of FastAPI.
        besides: Parameters that the route takes without documenting them.

    Raises:
        RequestError: If there is any other (``unknown-parameter``).
    """
    allowed = (*known_parameters(request), *besides)
    unknown = sorted(set(request.query_params) - set(allowed))
    if unknown:
        named = ", ".join(name[:60] for name in unknown[:5])
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            kind="unknown-parameter",
            detail=f"Unknown parameter {named}; "
            + (f"this route takes {', '.join(allowed)}." if allowed else "this route takes none."),
        )


async def _only_known_parameters(request: Request) -> None:
    refuse_unknown_parameters(request)


async def _turns(request: Request) -> Turns:
    turns: Turns = request.app.state.turns
    return turns


TurnsDep = Annotated[Turns, Depends(_turns)]
"""Whom to ask what takes the interpreter for milliseconds."""

SearcherDep = Annotated[ParcelSearcher, Depends(_searcher)]
"""The one searcher that all doors ask."""

KeyDep = Depends(_require_key)
"""Lets a request pass that carries a key, or every request where no keys are set."""

KnownParametersDep = Depends(_only_known_parameters)
"""Refuses query parameters that the route does not document."""
