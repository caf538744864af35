"""Fixtures for every floor."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Callable[[str], Path]:
    """Find a set of real data below ``PARCELLE_TEST_DATA``, or skip by name."""

    def find(name: str) -> Path:
        root = os.environ.get("PARCELLE_TEST_DATA")
        if not root:
            pytest.skip(f"real data {name!r}: PARCELLE_TEST_DATA names no folder")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"real data {name!r}: {folder} is no folder")
        return folder

    return find
