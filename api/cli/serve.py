"""``parcelle serve``: the HTTP service."""

import logging
import logging.config
import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.console import tell
from indexer.settings import Settings

if TYPE_CHECKING:
    from api.settings import ApiSettings

_log = logging.getLogger(__name__)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
) -> None:
    """Answer over HTTP. Without PARCELLE_API_KEYS, only this machine may ask.

    Its log, one JSON object a line, goes to stderr; PARCELLE_LOG_LEVEL=INFO
    has a line for each request. SIGTERM and Ctrl+C let running requests finish.

    For example:

      parcelle serve --port 8080

      curl 'http://127.0.0.1:8080/collections/demo/items/demo-012/similar?k=5'

      PARCELLE_API_KEYS=read:sha256:DIGEST parcelle serve --host 0.0.0.0

    parcelle keys new makes such an entry, and the key that goes with it.
    """
    run(Settings(), host, port, workers)


def run(settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Serve an index until interrupted; requests that are running then are finished."""
    import uvicorn

    from api.logs import log_config
    from api.settings import ApiSettings

    # Worker processes build the application themselves, from the environment.
    os.environ["PARCELLE_DATA_DIR"] = str(settings.data_dir)
    os.environ["PARCELLE_DATABASE_URL"] = settings.database_url
    api_settings = ApiSettings()
    api_settings.require_safe_host(host)
    _set_doors(api_settings)
    tell(f"Serving {settings.data_dir} at http://{host}:{port}/ (stop with Ctrl+C)")
    logging.config.dictConfig(log_config(settings.log_level))
    _warn_of_plain_keys(api_settings)
    # After its own work uvicorn hands the signal on to whoever had it before.
    signal.signal(signal.SIGTERM, _end)
    with _shared_metrics(workers), _our_exit_codes():
        uvicorn.run(
            "api.app:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http="api.http_protocol:BoundedHttpToolsProtocol",
            # Nothing here speaks WebSocket.
            ws="none",
            log_config=log_config(settings.log_level),
            # The application has lines of its own, without query strings.
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(api_settings.request_timeout_s),
        )


def _set_doors(settings: "ApiSettings") -> None:
    """Have the processes that serve read no key, and know the names that they may be asked by."""
    os.environ["PARCELLE_API_KEYS"] = ",".join(key.entry for key in settings.api_keys)
    if not settings.api_keys and not settings.allowed_hosts:
        # A stranger's page, open in a browser of this machine, may have its own name resolve to
        # it (DNS rebinding), and so would read and change all that no key protects.
        os.environ["PARCELLE_ALLOWED_HOSTS"] = "localhost"


def _warn_of_plain_keys(settings: "ApiSettings") -> None:
    plain = sum(key.is_plain for key in settings.api_keys)
    if plain:
        _log.warning(
            "%d of the keys in PARCELLE_API_KEYS can be read there; parcelle keys new makes keys "
            "of which only a digest is kept.",
            plain,
        )


def _end(*_: object) -> None:
    sys.exit(0)


@contextmanager
def _our_exit_codes() -> Iterator[None]:
    """Uvicorn ends with 3 if it cannot start, which elsewhere means that inputs were skipped."""
    try:
        yield
    except SystemExit as ended:
        sys.exit(1 if ended.code else 0)


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """Give several workers a folder to count in together, for as long as they run."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="parcelle-metrics-") as folder:
        # ``api.metrics`` has the name, and loads what must not be loaded before it is set.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield
