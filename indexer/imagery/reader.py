"""From files to chips: bands found by name, digital numbers turned into reflectance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds
from rasterio.warp import reproject
from rasterio.windows import Window

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.imagery.layers import (
    PASSED_OVER,
    Layer,
    ReadingOptions,
    Scaling,
    choose_layers,
    finest_grid,
    layers_of_band_folder,
    layers_of_file,
    layers_of_product,
    without_scaling,
)
from indexer.imagery.masking import clear_sky, has_data
from indexer.imagery.radar import check_calibrated, decibels, linear_power, radar_gaps
from indexer.imagery.rasters import open_raster, readable
from indexer.imagery.resampling import Alignment, bilinear, nearest
from indexer.imagery.safe import open_product
from indexer.imagery.safe_metadata import ProductMetadata
from indexer.imagery.sources import ImageSource, Source, find_sources, time_in_name
from indexer.sensors import (
    HAND_PROCESSED,
    OFFSET_DN,
    POLARIZATIONS,
    QUANTIFICATION,
    SCL,
    offset_dn,
    parse_baseline,
)

__all__ = [
    "MAX_CHIP_PX",
    "Layer",
    "ReadingOptions",
    "Scaling",
    "Scene",
    "baseline_doubt",
    "check_chip_size",
    "read_image",
    "readable",
    "time_in_tags",
]

MAX_CHIP_PX = 1024
"""Longest side of an image that may be taken as one chip, in pixels."""

IMPLAUSIBLE_NEGATIVE_FRACTION = 0.05
"""Share of negative reflectance above which the baseline is doubted."""

_TIME_TAGS = ("ACQUISITION_DATETIME", "ACQUISITION_DATE", "datetime", "DATETIME")
# STAC's own s2:processing_baseline cannot be asked for: GDAL ends a tag's name at the colon.
_BASELINE_TAG = "PROCESSING_BASELINE"
# Largest value that a file in units of reflectance may hold; digital numbers exceed it at once.
_MAX_UNIT_REFLECTANCE = 10.0


@dataclass(frozen=True)
class Scene:
    """One acquisition, opened by its headers only; pixels are read by window."""

    source: Source
    layers: tuple[Layer, ...]
    """The wanted bands, in the wanted order."""
    scl: Layer | None
    shape: tuple[int, int]
    """Height and width in pixels of the finest band."""
    transform: Affine
    crs: CRS | None
    acquired_at: datetime | None
    processing_baseline: str | None
    """As named by the options, the file or its name; None where nothing names it."""
    layer_bands: tuple[str, ...] | None = None
    """Band of each layer of the file as the options name them; None where the image tells."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the units of ``crs``."""
        west, south, east, north = array_bounds(*self.shape, self.transform)
        return west, south, east, north

    @property
    def is_remote(self) -> bool:
        """Whether some of its files lie on a server."""
        return any(layer.path.startswith("/vsicurl") for layer in self.layers)

    @classmethod
    def open(cls, source: ImageSource, options: ReadingOptions) -> "Scene":
        """Find bands, grid, time and baseline from the headers.

        Raises:
            ImageryError: If the files cannot be opened, bands cannot be named, or a wanted band
                is missing.
        """
        if source.kind == "safe":
            return cls._open_product(source, options)
        with readable(source):
            named, grid = None, None
            if source.is_band_folder:
                layers = layers_of_band_folder(source)
            else:
                layers, named, grid = layers_of_file(source, options)
            wanted, scl = choose_layers(source, layers, options.wanted)
            grid = grid or finest_grid(source, wanted, scl)
            check_calibrated(source, wanted)
            tags = _tags(wanted[0].path)
        baseline = options.baseline or _baseline(tags) or source.processing_baseline
        return cls(
            source=source,
            layers=wanted,
            scl=scl,
            shape=grid.shape,
            transform=grid.transform,
            crs=grid.crs,
            acquired_at=time_in_tags(tags) or source.acquired_at,
            processing_baseline=baseline,
            layer_bands=named,
        )

    @classmethod
    def _open_product(cls, source: ImageSource, options: ReadingOptions) -> "Scene":
        """Open a Sentinel-2 product; what its metadata do not tell, names do."""
        product = open_product(source.path, source.name)
        told = product.metadata or ProductMetadata()
        named = (time_in_name(file.name.rpartition("/")[2]) for file in product.bands)
        return cls.of_layers(
            source,
            layers_of_product(product),
            options,
            acquired_at=told.acquired_at or source.acquired_at or next(filter(None, named), None),
            baseline=told.processing_baseline or source.processing_baseline,
        )

    @classmethod
    def of_layers(
        cls,
        source: Source,
        layers: Sequence[Layer],
        options: ReadingOptions,
        *,
        acquired_at: datetime | None,
        baseline: str | None,
    ) -> "Scene":
        """Make a scene of bands whose files, time and baseline are known from metadata.

        Args:
            source: For messages, and for the names of its chips.
            layers: Of all bands that there are; their ``scaling`` holds unless the options name
                another baseline.
            options: Which bands are wanted, and perhaps the baseline.
            acquired_at: Acquisition time, aware UTC; None where nothing tells it.
            baseline: As the metadata or the product's name tell it; None where nothing does.

        Raises:
            ImageryError: If a file cannot be opened, or a wanted band is missing, or the bands
                cover different ground.
        """
        wanted, scl = choose_layers(source, layers, options.wanted)
        grid = finest_grid(source, wanted, scl)
        check_calibrated(source, wanted)
        if options.baseline not in (None, baseline):
            wanted = without_scaling(wanted)
        return cls(
            source=source,
            layers=wanted,
            scl=scl,
            shape=grid.shape,
            transform=grid.transform,
            crs=grid.crs,
            acquired_at=acquired_at,
            processing_baseline=options.baseline or baseline,
        )

    @classmethod
    def reopen(
        cls,
        source: ImageSource,
        bands: tuple[str, ...],
        *,
        layer_bands: tuple[str, ...] | None,
        baseline: str | None,
    ) -> "Scene":
        """Open an image that was read before, as it was read then, for some of its bands.

        Args:
            source: The image.
            bands: Bands to read, in order.
            layer_bands: As the scene or its chips had it then.
            baseline: Likewise; None where nothing named it.

        Raises:
            ImageryError: As ``open``.
        """
        if layer_bands is None:
            return cls.open(source, ReadingOptions(baseline=baseline, wanted=bands))
        # What the file says of some bands is not taken where it was not enough then, so all are
        # asked for again before some are chosen.
        every = tuple(band for band in layer_bands if band not in (PASSED_OVER, SCL))
        opened = cls.open(source, ReadingOptions(layer_bands, baseline, every))
        chosen, _ = choose_layers(source, opened.layers, bands)
        return replace(opened, layers=chosen)

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window of the scene; without arguments, all of it.

        Returns:
            A chip whose reflectance is as the metadata scale it, else ``(DN + offset) / 10000``;
            bands of a coarser grid are brought to the finest by bilinear interpolation, the scene
            classification by nearest. Backscatter of radar is in dB.

        Raises:
            ImageryError: If the pixels cannot be read.
        """
        window = Window(column, row, width or self.shape[1], height or self.shape[0])
        stack = np.empty((len(self.layers), window.height, window.width), dtype=np.float32)
        for path in dict.fromkeys(layer.path for layer in self.layers):
            places = [at for at, layer in enumerate(self.layers) if layer.path == path]
            with readable(self.source, path), open_raster(path) as file:
                self._read_bands(file, places, window, stack)
        scl = None if self.scl is None else self._read_scl(self.scl, window)
        reflectance = self._in_units(stack)
        optical = any(layer.band not in POLARIZATIONS for layer in self.layers)
        valid_mask: BoolArray = np.asarray(np.isfinite(reflectance).all(axis=0))
        if scl is not None:
            valid_mask &= clear_sky(scl)
        return Chip(
            reflectance=reflectance,
            bands=tuple(layer.band for layer in self.layers),
            valid_mask=valid_mask,
            transform=self._window_transform(window),
            crs=self.crs,
            scene=self.source.name,
            source=self.source.location,
            acquired_at=self.acquired_at,
            processing_baseline=self.processing_baseline if optical else None,
            scl=scl,
            stated_offset=self._stated_offset(),
            layer_bands=self.layer_bands,
        )

    def _stated_offset(self) -> float | None:
        """Of the first band for which metadata state one; a product has the same for all."""
        stated = (layer.scaling for layer in self.layers if layer.scaling is not None)
        return next((scaling.offset for scaling in stated), None)

    def _read_bands(
        self, file: DatasetReader, places: Sequence[int], window: Window, stack: FloatArray
    ) -> None:
        """Fill the bands of one file into ``stack``; NaN where there is no data.

        They are reflectance where metadata or the file state the scale, or the file holds
        integers. A file of floats may hold reflectance or digital numbers; all bands together
        tell which.
        """
        optical, radar = self._by_instrument(places)
        if radar:
            stack[radar] = self._read_backscatter(file, [self.layers[at] for at in radar], window)
        if not optical:
            return
        layers = [self.layers[at] for at in optical]
        numbers = [layer.number for layer in layers]
        read = self._read_layers(file, numbers, window, Resampling.bilinear)
        for at, layer, values in zip(optical, layers, read, strict=True):
            stack[at] = self._scaled(file, layer, values)

    def _read_backscatter(
        self, file: DatasetReader, layers: Sequence[Layer], window: Window
    ) -> FloatArray:
        """Bands of radar in the file's units; in linear power where they had to be resampled."""

        def cleaned(raw: npt.NDArray[np.generic], nodata: float | None) -> FloatArray:
            bands = zip(layers, radar_gaps(raw, nodata), strict=True)
            stated = np.stack([self._scaled(file, layer, values) for layer, values in bands])
            # Energy is what may be averaged.
            return stated if self._on_grid(file) else linear_power(decibels(stated))

        numbers = [layer.number for layer in layers]
        return self._read_layers(file, numbers, window, Resampling.bilinear, cleaned)

    def _by_instrument(self, places: Iterable[int]) -> tuple[list[int], list[int]]:
        """Places of optical bands and of bands of radar."""
        radar = {at for at, layer in enumerate(self.layers) if layer.band in POLARIZATIONS}
        every = list(places)
        return [at for at in every if at not in radar], [at for at in every if at in radar]

    def _scaled(self, file: DatasetReader, layer: Layer, values: FloatArray) -> FloatArray:
        at = layer.number - 1
        scale, offset, dtype = file.scales[at], file.offsets[at], file.dtypes[at]
        if layer.scaling is not None:
            # In double precision, so that it is the same as what the baseline rule makes of it.
            exact = values.astype(np.float64) * layer.scaling.scale + layer.scaling.offset
            return exact.astype(np.float32)
        if scale != 1 or offset != 0:
            # How the file says its numbers become reflectance includes the baseline's offset.
            stated: FloatArray = (values * scale + offset).astype(np.float32)
            return stated
        return self._from_dn(values) if np.issubdtype(np.dtype(dtype), np.integer) else values

    def _read_layers(
        self,
        file: DatasetReader,
        numbers: Sequence[int],
        window: Window,
        resampling: Resampling,
        cleaned: Callable[[npt.NDArray[np.generic], float | None], FloatArray] | None = None,
    ) -> FloatArray:
        """Layers as stored, brought to the scene's grid; nodata is NaN and is not mixed in."""
        cleaned = cleaned or _with_gaps
        if self._on_grid(file):
            return cleaned(file.read(list(numbers), window=window), file.nodata)
        needed = _window_around(file, self._window_transform(window), window)
        if needed is None:
            nothing = np.full((len(numbers), window.height, window.width), np.nan)
            return nothing.astype(np.float32)
        coarse = cleaned(file.read(list(numbers), window=needed), file.nodata)
        alignment = Alignment.of(self.transform, file.transform)
        if alignment is None:
            return self._warped(file, coarse, needed, window, resampling)
        rows = alignment.rows(window.row_off, window.height) - needed.row_off
        columns = alignment.columns(window.col_off, window.width) - needed.col_off
        resample = bilinear if resampling == Resampling.bilinear else nearest
        return resample(coarse, rows, columns)

    def _warped(
        self,
        file: DatasetReader,
        coarse: FloatArray,
        needed: Window,
        window: Window,
        resampling: Resampling,
    ) -> FloatArray:
        """Layers of a file whose rows do not run along the scene's, or whose pixels are finer."""
        fine = np.full((len(coarse), window.height, window.width), np.nan, dtype=np.float32)
        for source, destination in zip(coarse, fine, strict=True):
            reproject(
                source,
                destination,
                src_transform=file.transform @ Affine.translation(needed.col_off, needed.row_off),
                src_crs=file.crs or _ANY_CRS,
                src_nodata=np.nan,
                dst_transform=self._window_transform(window),
                dst_crs=file.crs or _ANY_CRS,
                dst_nodata=np.nan,
                resampling=resampling,
            )
        return fine

    def _read_scl(self, layer: Layer, window: Window) -> npt.NDArray[np.uint8]:
        with readable(self.source, layer.path), open_raster(layer.path) as file:
            (classes,) = self._read_layers(file, [layer.number], window, Resampling.nearest)
        # Class 0 means no data.
        clipped: npt.NDArray[np.uint8] = np.clip(np.nan_to_num(classes), 0, 255).astype(np.uint8)
        return clipped

    def _window_transform(self, window: Window) -> Affine:
        return self.transform @ Affine.translation(window.col_off, window.row_off)

    def _on_grid(self, file: DatasetReader) -> bool:
        in_pixels = ~self.transform @ file.transform
        same_place = in_pixels.almost_equals(Affine.identity(), _SAME_PLACE_PX)
        return (file.height, file.width) == self.shape and same_place

    def _in_units(self, stack: FloatArray) -> FloatArray:
        """Reflectance of the optical bands and dB of radar, shape ``(band, y, x)``."""
        optical, radar = self._by_instrument(range(len(self.layers)))
        if not radar:
            return self._to_reflectance(stack)
        if optical:
            stack[optical] = self._to_reflectance(stack[optical])
        stack[radar] = decibels(stack[radar])
        return stack

    def _to_reflectance(self, stack: FloatArray) -> FloatArray:
        """Scale floats that are too large to be reflectance, shape ``(band, y, x)``."""
        if all(layer.scaling is not None for layer in self.layers):
            return stack
        largest = np.nanmax(stack) if np.isfinite(stack).any() else 0.0
        return stack if largest < _MAX_UNIT_REFLECTANCE else self._from_dn(stack)

    def _from_dn(self, dn: FloatArray) -> FloatArray:
        offset = offset_dn(self.processing_baseline, self.acquired_at)
        return (dn + np.float32(offset)) / np.float32(QUANTIFICATION)


def read_image(path: Path, options: ReadingOptions) -> Chip:
    """Read one image as a whole: a file, or a folder of band files.

    Raises:
        NotFoundError: If there is no such file.
        InvalidInputError: If the path names several images.
        ImageryError: If it cannot be read, or is far larger than a chip.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; check the path.", kind="file-not-found")
    sources, _ = find_sources([path])
    if len(sources) != 1:
        raise InvalidInputError(
            f"{path}: holds {len(sources)} images; name one of them.", kind="invalid-option"
        )
    scene = Scene.open(sources[0], options)
    check_chip_size(scene)
    return scene.read()


def check_chip_size(scene: Scene) -> None:
    """Refuse to take a whole scene as one chip.

    Raises:
        ImageryError: ``too-large``.
    """
    height, width = scene.shape
    if max(height, width) > MAX_CHIP_PX:
        raise ImageryError(
            f"{scene.source.location}: {height} x {width} px is a scene, not a chip (at most "
            f"{MAX_CHIP_PX} px a side); give --parcels so that chips are cut around parcels.",
            kind="too-large",
        )


def baseline_doubt(chip: Chip) -> str | None:
    """A sentence if the chip's values contradict the processing baseline it was read with.

    Providers' flags lie about the offset, so the values have the last word: many negative
    reflectances mean that it was subtracted from numbers that never held it, and a floor of 0.1
    under every band means that it is still in.
    """
    optical = [at for at, band in enumerate(chip.bands) if band not in POLARIZATIONS]
    reflectance = chip.reflectance[:, chip.data_mask][optical]
    if reflectance.size == 0:
        return None
    used = chip.processing_baseline or "unknown"
    negative = float((reflectance < 0).mean())
    if negative > IMPLAUSIBLE_NEGATIVE_FRACTION:
        return (
            f"{chip.source}: {negative:.0%} of the reflectance is negative with baseline {used}; "
            "the offset seems to be removed already: give --baseline 03.01."
        )
    offset = chip.stated_offset
    if offset is None:
        offset = offset_dn(chip.processing_baseline, chip.acquired_at)
    if offset != 0:
        return None
    darkest = float(np.percentile(reflectance, 1, axis=1).min())
    if darkest >= -OFFSET_DN / QUANTIFICATION:
        return (
            f"{chip.source}: no band falls below reflectance {darkest:.2f} with baseline {used}; "
            "the offset of baseline 04.00 may still be in: if so, give --baseline 04.00."
        )
    return None


# Band files without a reference system share the plane of their own coordinates.
_ANY_CRS = CRS.from_epsg(3857)
# Transforms that differ by less are the same, written with other roundings.
_SAME_PLACE_PX = 1e-3
# Pixels of a coarser band around a window that interpolation may look at.
_MARGIN_PX = 2


def _with_gaps(dn: npt.NDArray[np.generic], nodata: float | None) -> FloatArray:
    """Raw values as float32 with NaN where there is no data."""
    values = dn.astype(np.float32)
    values[~has_data(dn, nodata)] = np.nan
    return values


def _window_around(file: DatasetReader, transform: Affine, window: Window) -> Window | None:
    """The part of a file under a window that starts at ``transform``; None where there is none."""
    to_file = ~file.transform @ transform
    corners = [to_file @ (x, y) for x in (0, window.width) for y in (0, window.height)]
    columns, rows = np.array(corners).T
    left, top = (max(0, int(np.floor(side.min())) - _MARGIN_PX) for side in (columns, rows))
    right = min(file.width, int(np.ceil(columns.max())) + _MARGIN_PX)
    bottom = min(file.height, int(np.ceil(rows.max())) + _MARGIN_PX)
    return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None


def _tags(path: str) -> dict[str, str]:
    with open_raster(path) as file:
        return dict(file.tags())


def time_in_tags(tags: Mapping[str, str]) -> datetime | None:
    """Acquisition time as a file's metadata tells it, aware UTC; None where it tells none."""
    for name in _TIME_TAGS:
        text = tags.get(name)
        if not text:
            continue
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            found = time_in_name(text)
            if found is None:
                continue
            return found
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None


def _baseline(tags: dict[str, str]) -> str | None:
    # A tag that cannot be read tells nothing; the product's name may.
    with suppress(InvalidInputError):
        baseline = parse_baseline(tags.get(_BASELINE_TAG, ""))
        return None if baseline == HAND_PROCESSED else baseline
    return None
