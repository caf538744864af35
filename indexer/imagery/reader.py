"""From files to chips: bands found by name, digital numbers turned into reflectance."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import array_bounds
from rasterio.warp import reproject
from rasterio.windows import Window

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.chip import BoolArray, Chip, FloatArray
from indexer.imagery.masking import clear_sky, has_data
from indexer.imagery.sources import ImageSource, find_sources, time_in_name
from indexer.sensors import (
    HAND_PROCESSED,
    OFFSET_DN,
    PROFILES,
    QUANTIFICATION,
    SCL,
    canonical_band,
    offset_dn,
    parse_baseline,
)

MAX_CHIP_PX = 1024
"""Longest side of an image that may be taken as one chip, in pixels."""

IMPLAUSIBLE_NEGATIVE_FRACTION = 0.05
"""Share of negative reflectance above which the baseline is doubted."""

# Stands in a list of bands for a layer that is none.
_PASSED_OVER = "-"

_TIME_TAGS = ("ACQUISITION_DATETIME", "ACQUISITION_DATE", "datetime", "DATETIME")
# STAC's own s2:processing_baseline cannot be asked for: GDAL ends a tag's name at the colon.
_BASELINE_TAG = "PROCESSING_BASELINE"
# Largest value that a file in units of reflectance may hold; digital numbers exceed it at once.
_MAX_UNIT_REFLECTANCE = 10.0


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
class Layer:
    """Where one band is found."""

    band: str
    path: str
    number: int
    """Layer in the file, counted from 1."""


@dataclass(frozen=True)
class Scene:
    """One acquisition, opened by its headers only; pixels are read by window."""

    source: ImageSource
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

    @classmethod
    def open(cls, source: ImageSource, options: ReadingOptions) -> "Scene":
        """Find bands, grid, time and baseline from the headers.

        Raises:
            ImageryError: If the files cannot be opened, bands cannot be named, or a wanted band
                is missing.
        """
        with readable(source):
            named, grid = None, None
            if source.is_band_folder:
                layers = _layers_of_band_folder(source)
            else:
                layers, named, grid = _layers_of_file(source, options)
            by_band = {layer.band: layer for layer in layers}
            missing = [band for band in options.wanted if band not in by_band]
            if missing:
                found = [layer.band for layer in layers]
                raise _missing_band(source, missing, found, options.wanted)
            wanted = tuple(by_band[band] for band in options.wanted)
            grid = grid or _finest_grid(source, wanted, by_band.get(SCL))
            tags = _tags(wanted[0].path)
        baseline = options.baseline or _baseline(tags) or source.processing_baseline
        return cls(
            source=source,
            layers=wanted,
            scl=by_band.get(SCL),
            shape=grid.shape,
            transform=grid.transform,
            crs=grid.crs,
            acquired_at=time_in_tags(tags) or source.acquired_at,
            processing_baseline=baseline,
            layer_bands=named,
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
        every = tuple(band for band in layer_bands if band not in (_PASSED_OVER, SCL))
        opened = cls.open(source, ReadingOptions(layer_bands, baseline, every))
        layers = {layer.band: layer for layer in opened.layers}
        missing = [band for band in bands if band not in layers]
        if missing:
            raise _missing_band(source, missing, list(layers), bands)
        return replace(opened, layers=tuple(layers[band] for band in bands))

    def read(self, row: int = 0, column: int = 0, height: int = 0, width: int = 0) -> Chip:
        """Read a window of the scene; without arguments, all of it.

        Returns:
            A chip whose reflectance is ``(DN + offset) / 10000``; bands of a coarser grid are
            brought to the finest by bilinear interpolation, the scene classification by nearest.

        Raises:
            ImageryError: If the pixels cannot be read.
        """
        window = Window(column, row, width or self.shape[1], height or self.shape[0])
        with readable(self.source), ExitStack() as opened:
            # A file of all bands is opened once, not once for each of them.
            paths = {layer.path for layer in self.layers} | ({self.scl.path} if self.scl else set())
            files = {path: opened.enter_context(_open(path)) for path in sorted(paths)}
            stack = np.stack([self._read_band(files, layer, window) for layer in self.layers])
            scl = None if self.scl is None else self._read_scl(files, self.scl, window)
        reflectance = self._to_reflectance(stack)
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
            source=str(self.source.path),
            acquired_at=self.acquired_at,
            processing_baseline=self.processing_baseline,
            scl=scl,
            layer_bands=self.layer_bands,
        )

    def _read_band(
        self, files: Mapping[str, DatasetReader], layer: Layer, window: Window
    ) -> FloatArray:
        """One band on the scene's grid, shape of the window; NaN where there is no data.

        Reflectance where the file states its scale or holds integers. A file of floats may hold
        reflectance or digital numbers; all its bands together tell which.
        """
        file, at = files[layer.path], layer.number - 1
        values = self._read_layer(file, layer.number, window, Resampling.bilinear)
        scale, offset, dtype = file.scales[at], file.offsets[at], file.dtypes[at]
        if scale != 1 or offset != 0:
            # How the file says its numbers become reflectance includes the baseline's offset.
            stated: FloatArray = (values * scale + offset).astype(np.float32)
            return stated
        return self._from_dn(values) if np.issubdtype(np.dtype(dtype), np.integer) else values

    def _read_layer(
        self, file: DatasetReader, number: int, window: Window, resampling: Resampling
    ) -> FloatArray:
        """A layer as stored, brought to the scene's grid; nodata is NaN and is not mixed in."""
        if self._on_grid(file):
            return _with_gaps(file.read(number, window=window), file.nodata)
        transform = self._window_transform(window)
        needed = _window_around(file, transform, window)
        fine = np.full((window.height, window.width), np.nan, dtype=np.float32)
        if needed is None:
            return fine
        reproject(
            _with_gaps(file.read(number, window=needed), file.nodata),
            fine,
            src_transform=file.transform @ Affine.translation(needed.col_off, needed.row_off),
            src_crs=file.crs or _ANY_CRS,
            src_nodata=np.nan,
            dst_transform=transform,
            dst_crs=file.crs or _ANY_CRS,
            dst_nodata=np.nan,
            resampling=resampling,
        )
        return fine

    def _read_scl(
        self, files: Mapping[str, DatasetReader], layer: Layer, window: Window
    ) -> npt.NDArray[np.uint8]:
        classes = self._read_layer(files[layer.path], layer.number, window, Resampling.nearest)
        # Class 0 means no data.
        clipped: npt.NDArray[np.uint8] = np.clip(np.nan_to_num(classes), 0, 255).astype(np.uint8)
        return clipped

    def _window_transform(self, window: Window) -> Affine:
        return self.transform @ Affine.translation(window.col_off, window.row_off)

    def _on_grid(self, file: DatasetReader) -> bool:
        in_pixels = ~self.transform @ file.transform
        same_place = in_pixels.almost_equals(Affine.identity(), _SAME_PLACE_PX)
        return (file.height, file.width) == self.shape and same_place

    def _to_reflectance(self, stack: FloatArray) -> FloatArray:
        """Scale floats that are too large to be reflectance, shape ``(band, y, x)``."""
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
            f"{scene.source.path}: {height} x {width} px is a scene, not a chip (at most "
            f"{MAX_CHIP_PX} px a side); give --parcels so that chips are cut around parcels.",
            kind="too-large",
        )


def baseline_doubt(chip: Chip) -> str | None:
    """A sentence if the chip's values contradict the processing baseline it was read with.

    Providers' flags lie about the offset, so the values have the last word: many negative
    reflectances mean that it was subtracted from numbers that never held it, and a floor of 0.1
    under every band means that it is still in.
    """
    reflectance = chip.reflectance[:, chip.data_mask]
    if reflectance.size == 0:
        return None
    used = chip.processing_baseline or "unknown"
    negative = float((reflectance < 0).mean())
    if negative > IMPLAUSIBLE_NEGATIVE_FRACTION:
        return (
            f"{chip.source}: {negative:.0%} of the reflectance is negative with baseline {used}; "
            "the offset seems to be removed already: give --baseline 03.01."
        )
    if offset_dn(chip.processing_baseline, chip.acquired_at) != 0:
        return None
    darkest = float(np.percentile(reflectance, 1, axis=1).min())
    if darkest >= -OFFSET_DN / QUANTIFICATION:
        return (
            f"{chip.source}: no band falls below reflectance {darkest:.2f} with baseline {used}; "
            "the offset of baseline 04.00 may still be in: if so, give --baseline 04.00."
        )
    return None


@dataclass(frozen=True)
class _Grid:
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None


# Band files without a reference system share the plane of their own coordinates.
_ANY_CRS = CRS.from_epsg(3857)
# Transforms that differ by less are the same, written with other roundings.
_SAME_PLACE_PX = 1e-3
# Pixels of a coarser band around a window that interpolation may look at.
_MARGIN_PX = 2


@contextmanager
def readable(source: ImageSource) -> Iterator[None]:
    """Turn what rasterio raises into an error that names the file."""
    try:
        with warnings.catch_warnings():
            # An image without georeference is legal; what needs one checks for it.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    # GDAL's own errors pass through rasterio where it asks for a reference system that is damaged.
    except (
        RasterioError,
        CRSError,
        CPLE_BaseError,
        OSError,
        MemoryError,
        UnicodeDecodeError,
    ) as error:
        detail = error.__cause__ or error
        raise ImageryError(
            f"{source.path}: cannot be read as GeoTIFF ({detail}); the file may be truncated or "
            "of another format. Fetch it again.",
            kind="unreadable",
        ) from error


def _open(path: str) -> DatasetReader:
    # Naming the driver keeps other formats, VRT above all, from being read under a .tif name. A
    # GeoTIFF may still name any other file as its overviews, so read at full resolution only.
    return rasterio.open(path, driver="GTiff")


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


def _layers_of_band_folder(source: ImageSource) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for band, path in source.files:
        if band is None:
            raise TypeError("a band folder names the band of each file")
        # Of _10m, _20m and _60m the finest comes first.
        layers.setdefault(band, Layer(band, str(path), 1))
    return list(layers.values())


def _missing_band(
    source: ImageSource, missing: Sequence[str], found: Sequence[str], wanted: Sequence[str]
) -> ImageryError:
    return ImageryError(
        f"{source.path}: required band {', '.join(missing)} is missing; it has "
        f"{', '.join(found)}. Use imagery that holds all of {', '.join(wanted)}.",
        kind="missing-band",
    )


def _layers_of_file(
    source: ImageSource, options: ReadingOptions
) -> tuple[list[Layer], tuple[str, ...] | None, _Grid]:
    """The layers that hold a band, the names of the options if they were needed, and the grid."""
    path = str(source.path)
    with _open(path) as file:
        grid = _grid(file)
        names = _names_of_layers(path, file.descriptions, options)
    layers = [
        Layer(name, path, number)
        for number, name in enumerate(names, start=1)
        if name is not None and name != _PASSED_OVER
    ]
    return layers, options.bands if names is options.bands else None, grid


def _names_of_layers(
    path: str, descriptions: tuple[str | None, ...], options: ReadingOptions
) -> Sequence[str | None]:
    """What the file says, where it names all wanted bands and none twice, else the options."""
    count = len(descriptions)
    described = [canonical_band(text) if text else None for text in descriptions]
    repeated = sorted({name for name in described if name and described.count(name) > 1})
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


def _finest_grid(source: ImageSource, layers: tuple[Layer, ...], scl: Layer | None) -> _Grid:
    """The grid of the band with most pixels; all, and the classes, must cover the same ground."""
    grids: list[tuple[Layer, _Grid]] = []
    for layer in layers if scl is None else (*layers, scl):
        with _open(layer.path) as file:
            grids.append((layer, _grid(file)))
    finest = max(
        (grid for _, grid in grids[: len(layers)]),
        key=lambda grid: grid.shape[0] * grid.shape[1],
    )
    extent = np.array(array_bounds(*finest.shape, finest.transform))
    for layer, grid in grids:
        differs = np.abs(np.array(array_bounds(*grid.shape, grid.transform)) - extent).max()
        coarsest_px = max(abs(grid.transform.a), abs(finest.transform.a))
        if grid.crs != finest.crs or differs > coarsest_px:
            raise ImageryError(
                f"{source.path}: band {layer.band} covers other ground than the other bands "
                f"({layer.path}); use bands of one acquisition and one tile.",
                kind="grids-differ",
            )
    return finest


def _grid(file: DatasetReader) -> _Grid:
    return _Grid((file.height, file.width), file.transform, file.crs)


def _tags(path: str) -> dict[str, str]:
    with _open(path) as file:
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
