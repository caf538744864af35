"""A schema is taken back to an older version and brought up again: no index forgets a commit."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from indexer.catalog.database import connect, downgrade, upgrade
from indexer.settings import Settings
from tests.faults.report import counted
from tests.faults.small_indexes import field, plant_fields
from tests.retriever.planted import plant, searching, settings_in, uproot


def there_and_back(index: Settings) -> None:
    """The log of changes is dropped on the way down, and made anew on the way up."""
    engine = connect(index)
    downgrade(engine, "0003")
    upgrade(engine)
    engine.dispose()


def found(index: Settings) -> dict[tuple[str, str | None], float]:
    """The observations of fields that a search finds, and their scores."""
    with searching(index) as searcher:
        matches = searcher.similar_by_id(
            "field-05", collection="fields", k=100, observations=True
        ).matches
    return {(one.parcel_id, one.scene): one.score for one in matches}


def parcels(observations: Iterable[tuple[str, str | None]]) -> set[str]:
    """Their names."""
    return {parcel for parcel, _ in observations}


def test_what_was_and_is_committed_is_found_after_the_log_was_dropped_and_made_anew(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    index = settings_in(tmp_path / "data")
    plant_fields(tmp_path / "data")
    before = found(index)
    with counted("the schema is taken back, and up again", "`db upgrade`", request):
        there_and_back(index)
        assert found(index) == pytest.approx(before, abs=1e-5)
        plant(index, [field(50, seed=0)], publish=False)
        uproot(index, "field-04")
        assert parcels(found(index)) == (parcels(before) | {"field-50"}) - {"field-04"}
