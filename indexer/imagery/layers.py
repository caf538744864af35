"""Which layer of which file holds which band, and the grid that an image's bands share."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds

from indexer.errors import ImageryError
from indexer.imagery.hardening import check_block_size, check_place
from indexer.imagery.rasters import open_raster, readable, shown_path
from indexer.imagery.safe import Product
from indexer.imagery.sources import ImageSource, Source
from indexer.sensors import PROFILES, SCL, canonical_band

PASSED_OVER: Final = "-"
"""Stands in a list of bands for a layer that is none."""

MAX_SIDE_PX: Final = 100_000
"""Longest side of an image whose header is believed; a tile of Sentinel-2 has 10,980."""


@dataclass(frozen=True)
class ReadingOptions:
    """What the files do not say themselves."""

    bands: tuple[str, ...] | None = None
    """Band name of each layer where neither descriptions nor file names tell; ``-`` skips one."""
    baseline: str | None = None
    """Processing baseline of all images, overriding what they say."""
    wanted: tuple[str, ...] = PROFILES["l2a"]
    """Bands to read, in order; SCL is read beside them where there is one."""


@dataclass(frozen=True)
class Scaling:
    """How digital numbers become reflectance, ``dn * scale + offset``, as metadata state it."""

    scale: float
    offset: float


@dataclass(frozen=True)
class Layer:
    """Where one band is found."""

    band: str
    path: str
    """As ``rasters.open_raster`` takes it."""
    number: int = 1
    """Layer in the file, counted from 1."""
    scaling: Scaling | None = None
    """None where the file itself, or else the processing baseline, tells the scale."""


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a file, or of an image, lie."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    transform: Affine
    """Pixel to map coordinates, as in rasterio."""
    crs: CRS | None
    """Reference system of ``transform``; None where the file has none."""


def layers_of_band_folder(source: ImageSource) -> list[Layer]:
    """One layer for each file; of a band at several pixel sizes the finest."""
    layers: dict[str, Layer] = {}
    for band, path in source.files:
        if band is None:
            raise TypeError("a band folder names the band of each file")
        # Of _10m, _20m and _60m the finest comes first.
        layers.setdefault(band, Layer(band, str(path)))
    return list(layers.values())


def layers_of_product(product: Product) -> list[Layer]:
    """The bands of a Sentinel-2 product, scaled as its metadata state where it has them."""
    told = product.metadata
    return [
        Layer(
            file.band,
            file.path,
            scaling=None
            if told is None or file.band == SCL
            else Scaling(1 / told.quantification, told.offset_dn(file.band) / told.quantification),
        )
        for file in product.bands
    ]


def layers_of_file(
    source: ImageSource, options: ReadingOptions
) -> tuple[list[Layer], tuple[str, ...] | None, Grid]:
    """The layers that hold a band, the names of the options if they were needed, and the grid.

    Raises:
        ImageryError: ``band-count`` or ``bands-unknown``, if they cannot be named; ``too-large``.
    """
    path = str(source.path)
    with open_raster(path) as file:
        grid = grid_of(file)
        check_block_size(file, path)
        check_place(grid.transform, grid.shape, path)
        _check_sides(path, path, grid)
        names = _names_of_layers(path, file.descriptions, options)
    layers = [
        Layer(name, path, number)
        for number, name in enumerate(names, start=1)
        if name is not None and name != PASSED_OVER
    ]
    return layers, options.bands if names is options.bands else None, grid


def choose_layers(
    source: Source, layers: Sequence[Layer], wanted: Sequence[str]
) -> tuple[tuple[Layer, ...], Layer | None]:
    """The wanted bands in the wanted order, and the scene classification where there is one.

    Raises:
        ImageryError: ``missing-band``.
    """
    by_band = {layer.band: layer for layer in layers}
    missing = [band for band in wanted if band not in by_band]
    if missing:
        raise ImageryError(
            f"{source.location}: required band {', '.join(missing)} is missing; it has "
            f"{', '.join(by_band) or 'none'}. Use imagery that holds all of {', '.join(wanted)}.",
            kind="missing-band",
        )
    return tuple(by_band[band] for band in wanted), by_band.get(SCL)


def without_scaling(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers as if no metadata stated how their numbers become reflectance."""
    return tuple(replace(layer, scaling=None) for layer in layers)


def finest_grid(source: Source, layers: Sequence[Layer], scl: Layer | None) -> Grid:
    """The grid of the band with most pixels; all, and the classes, must cover the same ground.

    Raises:
        ImageryError: ``unreadable``; ``grids-differ``; ``too-large``; ``missing-band``, if a file
            has no such layer.
    """
    every = layers if scl is None else (*layers, scl)
    by_path: dict[str, Grid] = {}
    for path in dict.fromkeys(layer.path for layer in every):
        by_path[path] = _checked_grid(source, [layer for layer in every if layer.path == path])
    finest = max(
        (by_path[layer.path] for layer in layers),
        key=lambda grid: grid.shape[0] * grid.shape[1],
    )
    extent = np.array(array_bounds(*finest.shape, finest.transform))
    for layer in every:
        grid = by_path[layer.path]
        differs = np.abs(np.array(array_bounds(*grid.shape, grid.transform)) - extent).max()
        coarsest_px = max(abs(grid.transform.a), abs(finest.transform.a))
        if grid.crs != finest.crs or differs > coarsest_px:
            raise ImageryError(
                f"{source.location}: band {layer.band} covers other ground than the other bands "
                f"({shown_path(layer.path)}); use bands of one acquisition and one tile.",
                kind="grids-differ",
            )
    return finest


def grid_of(file: DatasetReader) -> Grid:
    """Where the pixels of an open file lie."""
    return Grid((file.height, file.width), file.transform, file.crs)


def _checked_grid(source: Source, layers: Sequence[Layer]) -> Grid:
    """The grid of the file that holds these layers."""
    path, shown = layers[0].path, shown_path(layers[0].path)
    with readable(source, path), open_raster(path) as file:
        grid, count = grid_of(file), file.count
        check_block_size(file, f"{source.location}: {shown}")
    check_place(grid.transform, grid.shape, f"{source.location}: {shown}")
    _check_sides(source.location, shown, grid)
    for layer in layers:
        if not 1 <= layer.number <= count:
            raise ImageryError(
                f"{source.location}: band {layer.band} should be layer {layer.number} of {shown}, "
                f"which has {count}; fetch it again.",
                kind="missing-band",
            )
    return grid


def _check_sides(location: str, file: str, grid: Grid) -> None:
    if max(grid.shape) > MAX_SIDE_PX:
        raise ImageryError(
            f"{location}: the header of {file} states {grid.shape[0]} x {grid.shape[1]} px; at "
            f"most {MAX_SIDE_PX} px a side are read. Fetch it again.",
            kind="too-large",
        )


def _names_of_layers(
    path: str, descriptions: tuple[str | None, ...], options: ReadingOptions
) -> Sequence[str | None]:
    """What the file says, where it names all wanted bands and none twice, else the options."""
    count = len(descriptions)
    described = [canonical_band(text) if text else None for text in descriptions]
    repeated = sorted(name for name, times in Counter(described).items() if name and times > 1)
    unclear = repeated or not set(options.wanted) <= set(described)
    if options.bands is not None and unclear:
        if len(options.bands) != count:
            raise ImageryError(
                f"{path}: it has {count} bands, but --bands names {len(options.bands)} "
                f"({','.join(options.bands)}); give the profile or list that fits the file.",
                kind="band-count",
            )
        return options.bands
    if not any(described):
        raise ImageryError(
            f"{path}: its {count} bands have no names that are known"
            f"{_quoted(descriptions)}; name them with --bands "
            f"({', '.join(PROFILES)}, or a list such as B02,B03,B04,B08).",
            kind="bands-unknown",
        )
    if repeated:
        raise ImageryError(
            f"{path}: several of its {count} bands are named {', '.join(repeated)}; say with "
            "--bands which is meant ('-' passes a layer over).",
            kind="bands-unknown",
        )
    return described


def _quoted(descriptions: tuple[str | None, ...]) -> str:
    present = [repr(text[:40]) for text in descriptions if text]
    return f" ({', '.join(present[:5])})" if present else ""
