"""``parcelle serve``: the HTTP service."""

import math
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from api.cli.console import tell
from indexer.settings import Settings


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

      PARCELLE_API_KEYS=sesame parcelle serve --host 0.0.0.0 --workers 4
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
    tell(f"Serving {settings.data_dir} at http://{host}:{port}/ (stop with Ctrl+C)")
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
            log_config=log_config(settings.log_level),
            # The application has lines of its own, without query strings.
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(api_settings.request_timeout_s),
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
