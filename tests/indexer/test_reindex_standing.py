"""A large index goes on after a reindex, with what was committed since; a small one is built."""

from pathlib import Path

import pytest

from indexer.generations import compaction
from indexer.reindex import ReindexReport, reindex
from indexer.settings import Settings
from tests.indexer.farm import VEGETATION, on_image, options, searching, write_image, write_parcels
from tests.indexer.one_layer import one_layer_installed
from tests.schemas import copy_index

pytestmark = pytest.mark.usefixtures("one_layer")

OUTLINES = {f"p{number}": on_image(5 * number + 1, 4, 5 * number + 4, 18) for number in range(4)}


class Farm:
    """An image and a file of the parcels on it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder / "data", database_url="")
        self.image = folder / "scene.tif"
        self.parcels = folder / "parcels.geojson"

    def reindex(self, *parcel_ids: str, **chosen: object) -> ReindexReport:
        """Reindex with a file of these parcels only."""
        write_parcels(self.parcels, *((one, OUTLINES[one]) for one in parcel_ids))
        return reindex(self.settings, [self.image], options(parcels=self.parcels, **chosen))

    def found(self, parcel_id: str) -> tuple[int, set[str]]:
        """The generation that answers, and the parcels that a search finds."""
        with searching(self.settings) as searcher:
            answer = searcher.similar_by_id(parcel_id, k=100)
            return answer.generation, {match.parcel_id for match in answer.matches}


@pytest.fixture(scope="session")
def three_parcels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A farm whose first three parcels are indexed; not to be changed."""
    farm = Farm(tmp_path_factory.mktemp("three-parcels"))
    write_image(farm.image, scl=VEGETATION)
    with one_layer_installed():
        farm.reindex("p0", "p1", "p2")
    return farm.image.parent


@pytest.fixture
def farm(three_parcels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    """A copy of that farm, where three rows are too many to be built at once."""
    copy_index(three_parcels, tmp_path)
    monkeypatch.setattr(compaction, "BUILT_IN_SECONDS", 2)
    return Farm(tmp_path)


def test_a_small_index_is_built_anew(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "BUILT_IN_SECONDS", 3)
    assert farm.reindex("p0", "p1", "p2", "p3").generation == 2
    assert farm.found("p0") == (2, {"p1", "p2", "p3"})


def test_a_large_one_goes_on_and_what_was_embedded_is_found(farm: Farm) -> None:
    report = farm.reindex("p0", "p1", "p2", "p3")
    assert (report.embedded, report.generation) == (1, 1)
    assert farm.found("p0") == (1, {"p1", "p2", "p3"})
    assert any(
        note.startswith("Generation 1 goes on, with 1 vectors added and 0 removed since")
        for note in report.notes
    )


def test_what_is_pruned_is_gone_at_once(farm: Farm) -> None:
    report = farm.reindex("p0", "p3", prune=True)
    assert (report.retired, report.parcels, report.generation) == (2, 2, 1)
    assert farm.found("p0") == (1, {"p3"})
    again = farm.reindex("p0", "p3", prune=True)
    assert (again.retired, again.generation) == (0, 1)


def test_it_is_built_when_so_much_has_changed_that_it_is_due(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FEWEST_CHANGES", 0)
    assert farm.reindex("p0", "p1", "p2", "p3").generation == 2
    assert farm.found("p0") == (2, {"p1", "p2", "p3"})


def test_it_is_built_in_a_full_run(farm: Farm) -> None:
    assert farm.reindex("p0", "p1", "p2", full=True).generation == 2


def test_a_damaged_one_is_built(farm: Farm) -> None:
    (farm.settings.generations_dir / "1" / "vectors.npy").write_bytes(b"")
    assert farm.reindex("p0", "p1", "p2", "p3").generation == 2
    assert farm.found("p0") == (2, {"p1", "p2", "p3"})


def test_a_collection_that_is_not_searched_yet_is_published(farm: Farm) -> None:
    report = farm.reindex("p0", "p3", collection="other")
    assert (report.embedded, report.generation) == (2, 2)
