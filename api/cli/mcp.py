"""``parcelle mcp``: the questions that a language model may ask, over stdin and stdout."""

from api.cli.console import tell
from indexer.settings import Settings


def mcp() -> None:
    """Answer one MCP client over stdin and stdout: a chat or coding program that starts this.

    For example:

      claude mcp add parcelle -- parcelle mcp

    Other clients take the same as JSON: {"mcpServers": {"parcelle":
    {"command": "parcelle", "args": ["mcp"],
    "env": {"PARCELLE_DATA_DIR": "/path/to/parcelle-data"}}}}
    """
    import logging
    import signal

    from api.mcp_server import run_stdio

    settings = Settings()
    # Stdout is the protocol's; basicConfig writes to stderr.
    logging.basicConfig(level=settings.log_level)
    # Python would first wait for the thread that reads stdin, so for a line that never comes. All
    # that is done here is reading: there is nothing to tidy up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tell(f"Serving {settings.data_dir} over MCP on stdin and stdout (stop with Ctrl+C)")
    run_stdio(settings)
