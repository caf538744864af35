"""A row of parcels from west to east, and how to read the service's pages of them."""

from pathlib import Path
from typing import Any

from indexer.settings import Settings
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PARCELS = 150

SIDE = 0.01
"""Of a parcel, and between two of them, in degrees."""


def plant_row(folder: Path) -> Settings:
    """An index of them: every third was seen in April, the others in May."""
    chosen = settings_in(folder)
    plant(
        chosen,
        [
            Seen(
                f"p{n:03}",
                at_cosine(0.5),
                day="2023-04-24" if n % 3 == 0 else "2023-05-29",
                crop_code="BTH",
                crop_name="winter wheat",
                corner=(2 + 2 * SIDE * n, 49.0),
                indices={"NDVI": n / PARCELS},
                attributes={"farm": n % 7, "name": "Étang", "organic": n % 2 == 0},
            )
            for n in range(PARCELS)
        ]
        + [Seen("chip", at_cosine(0.4), day=None, corner=None, collection="zürich")],
    )
    return chosen


def ids(page: dict[str, Any]) -> list[str]:
    """Ids of a page's features."""
    return [feature["id"] for feature in page["features"]]


def link(page: dict[str, Any], rel: str) -> str | None:
    """Where the one link of a relation leads."""
    found = [link["href"] for link in page["links"] if link["rel"] == rel]
    assert len(found) <= 1
    return found[0] if found else None
