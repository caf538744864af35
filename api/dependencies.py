"""What routes ask for: the searcher, a valid key, parameters that exist."""

import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request, Security, params
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import OperationalError

from api.decoder import LazyDecoder
from api.errors import RequestError
from api.keys import Scope, find_key
from api.settings import ApiSettings
from api.timing import TimedSearcher
from api.turns import Turns
from indexer.catalog.database import open_catalog, unreachable
from indexer.errors import StorageError
from indexer.settings import Settings
from retriever.search import ParcelSearcher

_SCOPES = (
    "A key has a scope: `read` asks, `write` asks and changes names of clusters. Where a key's "
    "scope is too small, the answer is 403."
)
_BEARER = HTTPBearer(auto_error=False, description=f"One of the service's keys. {_SCOPES}")
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
        self._failure: StorageError | None = None
        self._failed_at = 0.0

    @property
    def opened(self) -> ParcelSearcher | None:
        """The searcher, if it is open already."""
        return self._searcher

    def get(self) -> ParcelSearcher:
        """The searcher, opened if need be.

        One caller after the other tries. Those who waited while a try failed are told the same:
        a server that hangs takes seconds to be found out, and each of them would wait as long
        again.

        Raises:
            StorageError: If there is no database yet, or it cannot be used as it is.
        """
        asked_at = time.monotonic()
        with self._opening:
            if self._searcher is None:
                if self._failure is not None and self._failed_at > asked_at:
                    raise StorageError(self._failure.message, kind=self._failure.kind)
                self._searcher = self._try()
            return self._searcher

    def _try(self) -> ParcelSearcher:
        try:
            return self._opened()
        except StorageError as error:
            self._fail(error)
            raise
        except OperationalError as error:
            failure = unreachable(error)
            self._fail(failure)
            raise failure from error

    def _fail(self, failure: StorageError) -> None:
        self._failure, self._failed_at = failure, time.monotonic()

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
    _check_key(request, bearer, header, "read")


async def _require_write_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    header: Annotated[str | None, Security(_HEADER)],
) -> None:
    _check_key(request, bearer, header, "write")


def _check_key(
    request: Request,
    bearer: HTTPAuthorizationCredentials | None,
    header: str | None,
    scope: Scope,
) -> None:
    settings: ApiSettings = request.app.state.settings
    if not settings.api_keys:
        return
    given = [] if bearer is None else [bearer.credentials]
    given += [] if header is None else [header]
    # Header bytes arrive decoded as Latin-1.
    key = find_key((one.encode("latin-1") for one in given), settings.api_keys)
    if key is None:
        raise RequestError(
            HTTPStatus.UNAUTHORIZED,
            kind="unauthorized",
            detail="Send a key of the service, as Authorization: Bearer KEY or X-API-Key: KEY.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not key.allows(scope):
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            kind="forbidden",
            detail=f"This key may only {key.scope}; to change something, send a key with the scope "
            f"{scope}, which whoever runs the service can give you.",
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


async def _decoder(request: Request) -> LazyDecoder:
    decoder: LazyDecoder = request.app.state.decoder
    return decoder


DecoderDep = Annotated[LazyDecoder, Depends(_decoder)]
"""Who reads uploaded images."""

SearcherDep = Annotated[ParcelSearcher, Depends(_searcher)]
"""The one searcher that all doors ask."""

KeyDep = Depends(_require_key)
"""Lets a request pass that carries a key, or every request where no keys are set."""

WriteKeyDep = Depends(_require_write_key)
"""Likewise, if the key's scope is ``write``: for what changes something."""

KnownParametersDep = Depends(_only_known_parameters)
"""Refuses query parameters that the route does not document."""
