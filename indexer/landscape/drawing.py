"""The landscape drawn top to bottom: land, sky, a scene a date, the file of its parcels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_geom
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from indexer.errors import InvalidInputError
from indexer.landscape.canvas import Canvas
from indexer.landscape.layout import lay_out
from indexer.landscape.pieces import Piece
from indexer.landscape.place import UTM_31N
from indexer.landscape.scene import classified, digital_numbers, product_name, sensed, write_scene
from indexer.landscape.sky import Sky

DATES = (
    date(2023, 3, 15),
    date(2023, 4, 24),
    date(2023, 5, 29),
    date(2023, 7, 3),
    date(2023, 8, 12),
)
"""One season: winter crops green up, rapeseed flowers, cereals ripen, maize takes over."""

MIN_SIZE_PX = 130
"""Smallest scene: one encoder chip of 120 px and a margin around it."""

MIN_PARCEL_PX = 12
"""Smallest spacing of parcels, in pixels; below it the lanes would leave little of them."""

_LONGITUDE_LATITUDE = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Landscape:
    """The files of a landscape that was drawn."""

    parcels_file: Path
    """GeoJSON with fiboa names, EPSG:4326."""
    scenes: tuple[Path, ...]
    """One GeoTIFF a date, in the order of the dates."""
    crops: dict[str, str]
    """Crop name of each parcel by its id."""


def draw_landscape(
    folder: Path,
    *,
    size_px: int = 300,
    dates: Sequence[date] = DATES,
    seed: int = 0,
    parcels_across: int = 8,
) -> Landscape:
    """Draw a square of farmland: ``parcels.geojson`` and one GeoTIFF a date.

    A scene has the twelve Level-2A bands and the scene classification as uint16 layers, named by
    their descriptions. It is named like a product of baseline 05.09, and so its digital numbers
    carry the radiometric offset. Cloud and shadow hide 10 to 15 % of the middle date, at the
    default size some parcels altogether. Files of the same names are overwritten.

    Args:
        folder: Where to write; made if it does not exist.
        size_px: Side of the scenes in pixels of 10 m.
        dates: Acquisition dates, each of one scene.
        seed: The same seed draws the same pixels and the same parcels.
        parcels_across: Parcels along a side; about the square of it are drawn.

    Returns:
        The files, and the crop of each parcel.

    Raises:
        InvalidInputError: If no landscape can be drawn so (``invalid-option``).
    """
    _check(size_px, dates, seed, parcels_across)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    surroundings, pieces = lay_out(size_px, parcels_across, rng)
    parcels = {f"demo-{number:03d}": piece for number, piece in enumerate(pieces, start=1)}
    canvas = Canvas.primed([*surroundings, *pieces], size_px, rng)
    clear, clouded = Sky.clear(size_px), Sky.clouded(pieces, size_px, rng)
    scenes = []
    for number, day in enumerate(dates):
        sky = clouded if number == len(dates) // 2 else clear
        noise = np.random.default_rng([seed, day.toordinal()])
        dn = digital_numbers(sky.over(sensed(canvas.reflectance(day), noise)))
        scl = sky.flagged(classified(dn))
        scenes.append(write_scene(folder / f"{product_name(day)}.tif", dn, scl))
    parcels_file = _write_parcels(folder / "parcels.geojson", parcels)
    crops = {parcel_id: piece.growth.name for parcel_id, piece in parcels.items()}
    return Landscape(parcels_file, tuple(scenes), crops)


def _check(size_px: int, dates: Sequence[date], seed: int, parcels_across: int) -> None:
    """Raise InvalidInputError where the options make no landscape."""
    most_across = size_px // MIN_PARCEL_PX - 1
    if size_px < MIN_SIZE_PX:
        problem = f"size_px is {size_px}; a landscape needs at least {MIN_SIZE_PX} pixels a side."
    elif not dates:
        problem = "dates is empty; name at least one acquisition date."
    elif len(set(dates)) < len(dates):
        problem = "dates names a day more than once; each day makes one scene, name it once."
    elif seed < 0:
        problem = f"seed is {seed}; use zero or a positive integer."
    elif not 1 <= parcels_across <= most_across:
        problem = (
            f"parcels_across is {parcels_across}; {size_px} px have room for 1 to {most_across}."
        )
    else:
        return
    raise InvalidInputError(problem, kind="invalid-option")


def _write_parcels(path: Path, parcels: dict[str, Piece]) -> Path:
    """Write GeoJSON; seven decimals of a degree are about a centimeter."""
    features = [
        {
            "type": "Feature",
            "id": parcel_id,
            "properties": {"id": parcel_id, **piece.properties},
            "geometry": transform_geom(
                UTM_31N, _LONGITUDE_LATITUDE, mapping(orient(piece.outline)), precision=7
            ),
        }
        for parcel_id, piece in parcels.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path
