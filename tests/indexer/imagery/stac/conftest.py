"""A server on loopback and limits that suit it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.imagery.stac.limits import Limits
from tests.indexer.imagery.stac.file_server import FileServer, serve_files


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    with serve_files(tmp_path) as files:
        yield files


@pytest.fixture
def limits() -> Limits:
    """Patient enough for a busy machine; attempts follow one another at once."""
    return Limits(connect_s=5, silence_s=5, request_s=10, retries=2, delay_s=0.01)


@pytest.fixture
def hasty(limits: Limits) -> Limits:
    """For servers that never answer."""
    return replace(limits, silence_s=0.2, request_s=0.4)
