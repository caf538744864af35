"""Fixtures of the fault tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.ordeals import TROUBLES, Laboratory, Ordeal
from tests.faults.report import Entry, note
from tests.faults.small_indexes import (
    index_images,
    photograph,
    plant_fields,
    plant_older_schema,
    plant_with_a_backup,
)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    """A process that lets commands meet trouble."""
    with Laboratory(tmp_path_factory.mktemp("trials")) as laboratory:
        yield laboratory


class Beginnings:
    """Data folders that commands begin with, made when they are first asked for.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._made:
            place = self._folder / name.replace(" ", "-")
            self._makers()[name](place)
            self._made[name] = place
        return self._made[name]

    @property
    def images(self) -> Path:
        """Images of a second season."""
        if not (self._folder / "images").exists():
            photograph(self._folder / "images")
        return self._folder / "images" / "second"

    def _makers(self) -> dict[str, Callable[[Path], object]]:
        return {
            "nothing": lambda place: None,
            "fields": plant_fields,
            "images": lambda place: index_images(place, self.images.with_name("first")),
            "backup": plant_with_a_backup,
            "older schema": lambda place: plant_older_schema(place, "0002"),
        }


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> Beginnings:
    """Data folders by name; only to be copied."""
    return Beginnings(tmp_path_factory.mktemp("beginnings"))


@pytest.fixture
def endured(laboratory: Laboratory, request: pytest.FixtureRequest) -> Callable[[Ordeal], None]:
    """Tries an ordeal, tells the report, and fails where anything was not as it must be."""

    def endure(ordeal: Ordeal) -> None:
        tried = laboratory.endure(ordeal)
        note(
            Entry(
                TROUBLES[ordeal.trouble],
                ordeal.name,
                tried.met,
                len(tried.complaints),
                request.node.nodeid.split("[")[0],
            )
        )
        assert not tried.complaints, "\n".join(
            [f"{len(tried.complaints)} complaints of {tried.trials} trials", *tried.complaints[:5]]
        )
        assert tried.met > 0, "nothing met the trouble"

    return endure
