"""``parcelle serve``: the HTTP service."""

import os
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

    For example:

      parcelle serve --port 8080

      curl http://127.0.0.1:8080/collections/demo/items/demo-012/similar?k=5
    """
    run(Settings(), host, port, workers)


def run(settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Serve an index until interrupted."""
    import uvicorn

    from api.settings import ApiSettings

    # Worker processes build the application themselves, from the environment.
    os.environ["PARCELLE_DATA_DIR"] = str(settings.data_dir)
    os.environ["PARCELLE_DATABASE_URL"] = settings.database_url
    ApiSettings().require_safe_host(host)
    tell(f"Serving {settings.data_dir} at http://{host}:{port}/ (stop with Ctrl+C)")
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_level=settings.log_level.lower(),
    )
