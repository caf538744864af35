"""Data folders that commands begin with: small, but of two spaces and several generations."""

from pathlib import Path

import pytest
from sqlalchemy import text

from indexer.backup.making import back_up
from indexer.catalog.database import connect, downgrade
from indexer.reindex import reindex
from tests.indexer.farm import options, write_image, write_images
from tests.indexer.one_layer import one_layer_installed
from tests.retriever.planted import (
    UNTRAINED,
    Seen,
    plant,
    random_vectors,
    settings_in,
    uproot,
)

FIELDS = 12
MEADOWS = 4


def field(number: int, seed: int, day: str = "2023-05-29") -> Seen:
    """A parcel of the larger collection; the seed decides its vector."""
    return Seen(
        f"field-{number:02}",
        random_vectors(1, 1000 * number + seed)[0],
        day=day,
        collection="fields",
        crop_name=("wheat", "maize", None)[number % 3],
        corner=(2.0 + 0.02 * number, 49.0),
    )


def plant_fields(folder: Path, *, lists: bool = False, fresh: bool = True) -> None:
    """An index of two collections in two spaces; one has three generations behind it.

    Args:
        folder: The data folder; it is not there yet.
        lists: Give the larger index several lists, as one of many rows has.
        fresh: Add, change and delete parcels after the last generation.
    """
    index = settings_in(folder)
    count = 10 * FIELDS if lists else FIELDS
    with pytest.MonkeyPatch.context() as patch:
        if lists:
            patch.setattr("indexer.vector_index.sizing.SEARCHED_WHOLE", count // 2)
        plant(index, [field(number, seed=0) for number in range(count // 2)])
        meadows = [
            Seen(f"meadow-{number}", vector, collection="meadows", crop_name="grassland")
            for number, vector in enumerate(random_vectors(MEADOWS, seed=7))
        ]
        plant(index, meadows, weights=UNTRAINED)
        plant(index, [field(number, seed=0) for number in range(count)])
        plant(index, [field(number, seed=0, day="2023-08-12") for number in range(count // 3)])
    if fresh:
        since = [field(number, seed=1) for number in range(count - 2, count + 2)]
        plant(index, since, publish=False)
        uproot(index, "field-00", "field-01")


def plant_with_a_backup(folder: Path) -> None:
    """An index of half of the fields, and in it a backup of all, from before the others went."""
    plant_fields(folder)
    index = settings_in(folder)
    back_up(index, folder / "kept")
    uproot(index, *(f"field-{number:02}" for number in range(2, FIELDS // 2)))


def plant_older_schema(folder: Path, revision: str) -> None:
    """The same in the schema of an older version, which knows of nothing since the last."""
    plant_fields(folder, fresh=False)
    engine = connect(settings_in(folder))
    downgrade(engine, revision)
    engine.dispose()
    _leave_no_log(folder)


def _leave_no_log(folder: Path) -> None:
    engine = connect(settings_in(folder))
    with engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()


def photograph(folder: Path) -> tuple[Path, Path]:
    """Two seasons of images, one parcel each; the second has lost, changed and won some.

    Returns:
        Their folders.
    """
    first, second = folder / "first", folder / "second"
    write_images(first, 5)
    write_images(second, 7)
    write_image(second / "image-01.tif", seed=101)
    (second / "image-00.tif").unlink()
    return first, second


def index_images(folder: Path, images: Path) -> None:
    """An index of images, as ``parcelle reindex`` makes it."""
    with one_layer_installed():
        reindex(settings_in(folder), [images], options(batch_size=2))
    _leave_no_log(folder)
