"""What the benchmark looks at: farmland that is drawn, and many small images."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from shapely.geometry import shape

from indexer.embedding_space import Pooling
from indexer.encoders.croma import CromaEncoder
from indexer.findings import Findings
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.landscape.drawing import draw_landscape
from indexer.landscape.place import TRANSFORM, UTM_31N
from indexer.pipeline import Inputs, Opened, TileWork, each_image, recipe_of, tile_works
from indexer.preparing import FloatArray, Preparation
from indexer.progress import Silent
from indexer.sensors import PROFILES

TILES_PX = 88
"""Distance of neighboring tiles. A scene of a multiple of it has one tile for so much land, as a
whole product of Sentinel-2 has; of another size it would have more, or fewer."""

DENSITY = 25
"""Parcels per km2, about: parcels of 4 ha on the whole land."""

# A drawn landscape joins some parcels and divides more: so many come of one cell of its grid.
_OF_A_CELL = 1.07
# The middle one of several dates is clouded; of two, the second.
_DATES = (date(2023, 5, 29), date(2023, 7, 3))
_SMALL_PX = 30


@dataclass(frozen=True)
class Farmland:
    """One cloudless scene and its parcels."""

    scene: Path
    parcels: Path
    count: int
    """Parcels."""
    area_km2: float

    @property
    def density(self) -> float:
        """Parcels per km2 of the scene."""
        return self.count / self.area_km2


def draw_farmland(folder: Path, tiles_across: int) -> Farmland:
    """Draw a square scene full of parcels of about 4 ha."""
    size_px = TILES_PX * tiles_across
    side_km = size_px / 100
    across = round(side_km * (DENSITY / _OF_A_CELL) ** 0.5)
    land = draw_landscape(folder, size_px=size_px, dates=_DATES, parcels_across=across)
    return Farmland(land.scenes[0], land.parcels_file, len(land.crops), side_km**2)


def middle_parcels(land: Farmland, count: int, folder: Path) -> Path:
    """A file of so many parcels around the middle of the scene.

    Neighbors, whose chips share pixels; at the scene's edge some would share a chip.
    """
    collection = json.loads(land.parcels.read_text(encoding="utf-8"))
    parcels = collection["features"]
    centers = np.array([shape(one["geometry"]).centroid.coords[0] for one in parcels])
    nearest = np.abs(centers - np.median(centers, axis=0)).max(axis=1).argsort()
    collection["features"] = [parcels[place] for place in nearest[:count]]
    path = folder / f"parcels-{count}.geojson"
    path.write_text(json.dumps(collection), encoding="utf-8")
    return path


def draw_small_images(folder: Path, count: int) -> Path:
    """Write so many images of 30 x 30 px, each with pixels of its own."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    bands = PROFILES["l2a"]
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(bands),
        "height": _SMALL_PX,
        "width": _SMALL_PX,
        "crs": UTM_31N,
        "transform": TRANSFORM,
        "nodata": 0,
    }
    for number in range(count):
        with rasterio.open(folder / f"field-{number:05}.tif", "w", **profile) as file:
            file.descriptions = bands
            file.write(rng.integers(200, 4000, (len(bands), _SMALL_PX, _SMALL_PX), np.uint16))
    return folder


def tiles_of(land: Farmland, encoder: CromaEncoder) -> list[TileWork]:
    """All tiles of a scene with parcels, ready for the encoder."""
    inputs, preparation = _prepared(land.scene, land.parcels, encoder, "parcel")
    findings = Findings()
    take = partial(
        tile_works,
        preparation=preparation,
        findings=findings,
        progress=Silent(),
        wanted=lambda prepared: prepared,
        input_of=preparation.input_of,
    )
    return [work for work in each_image(inputs, findings, Silent(), "", take) if work.jobs]


def chips_of(scene: Path, parcels: Path, encoder: CromaEncoder) -> Iterator[FloatArray]:
    """A chip around each parcel as the encoder takes it, read one after the other."""
    inputs, preparation = _prepared(scene, parcels, encoder, "image")

    def take(opened: Opened) -> Iterator[FloatArray]:
        for plan in opened.plan:
            for _ in plan.targets:
                yield preparation.input_of(opened.read(plan.window))

    return each_image(inputs, Findings(), Silent(), "", take)


def _prepared(
    scene: Path, parcels: Path, encoder: CromaEncoder, pooling: Pooling
) -> tuple[Inputs, Preparation]:
    options = EmbeddingOptions(parcels=parcels, encoder=encoder.name, pooling=pooling)
    inputs = resolve_inputs([scene], options, Findings())
    recipe = recipe_of(encoder, inputs)
    return inputs, Preparation(recipe, pooling, encoder.patches_per_side)
