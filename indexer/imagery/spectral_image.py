"""Images of any number of bands, whatever their format: ENVI, GeoTIFF, NumPy, Sentinel-2.

``docs/images.md`` says what each format must tell.
"""

from collections.abc import Sequence
from pathlib import Path

from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery.envi import DATA_SUFFIXES, HEADER, is_envi_data, open_envi
from indexer.imagery.geotiff_image import open_geotiff, sentinel2_bands
from indexer.imagery.hardening import named_file
from indexer.imagery.image_blocks import (
    MEMORY_MIB,
    PixelSurvey,
    block_rows,
    survey_pixels,
    valid_pixel_count,
    without_empty_bands,
)
from indexer.imagery.labels import read_labels
from indexer.imagery.numpy_image import open_numpy
from indexer.imagery.sentinel2_image import open_sentinel2
from indexer.imagery.sources import EXTENSIONS, ImageSource, find_sources
from indexer.imagery.spectral_bands import SpectralBand, match_bands
from indexer.imagery.spectral_cube import SpectralImage
from indexer.imagery.true_color import true_color, true_color_bands
from indexer.sensors import SCL, parse_bands, parse_baseline

__all__ = [
    "MEMORY_MIB",
    "PixelSurvey",
    "SpectralBand",
    "SpectralImage",
    "block_rows",
    "open_spectral_image",
    "read_labels",
    "select_bands",
    "survey_pixels",
    "true_color",
    "true_color_bands",
    "valid_pixel_count",
    "without_empty_bands",
]


def open_spectral_image(
    path: str | Path, *, bands: str | None = None, baseline: str | None = None
) -> SpectralImage:
    """Open an image of two or more bands by its header; pixels are read by window.

    Args:
        path: An ENVI header or data file, a GeoTIFF, a ``.npy`` or ``.npz``, or a folder with one
            GeoTIFF for each band of Sentinel-2.
        bands: As ``--bands``: names the bands of a Sentinel-2 GeoTIFF that does not name them.
        baseline: As ``--baseline``: Sentinel-2's processing baseline.

    Raises:
        NotFoundError: ``file-not-found``.
        InvalidInputError: ``invalid-bands``, also for a format that names its own bands;
            ``invalid-baseline``; ``invalid-option``, if a folder holds several images.
        ImageryError: If the image cannot be used; nothing of its pixels was read by then.
    """
    path = Path(path)
    named = None if bands is None else parse_bands(bands)
    stated = None if baseline is None else parse_baseline(baseline)
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in EXTENSIONS:
        return _open_geotiff(path, named, stated)
    named_file(path)
    if named is not None:
        raise InvalidInputError(
            f"--bands {bands}: names the bands of Sentinel-2 GeoTIFFs; {path} names its own. Leave "
            "it away.",
            kind="invalid-bands",
        )
    if suffix in (".npy", ".npz"):
        return open_numpy(path)
    if suffix == HEADER or suffix in DATA_SUFFIXES or is_envi_data(path):
        return open_envi(path)
    raise ImageryError(
        f"{path}: not an image of a known format; give a GeoTIFF ({', '.join(EXTENSIONS)}), ENVI "
        f"(.hdr, {', '.join(filter(None, DATA_SUFFIXES))}) or NumPy (.npy, .npz).",
        kind="unreadable",
    )


def select_bands(image: SpectralImage, wanted: Sequence[SpectralBand]) -> SpectralImage:
    """The wanted bands of an image, in the wanted order.

    Args:
        image: Of any bands.
        wanted: For instance those that an encoder was trained with; see
            ``spectral_bands.match_bands`` for when two bands are the same.

    Raises:
        ImageryError: ``missing-band``; ``band-count`` or ``no-wavelengths``, where wavelengths
            cannot decide.
    """
    path = str(image.source.path)
    try:
        return image.with_bands(match_bands(path, image.bands, wanted))
    except ImageryError as error:
        if error.kind != "band-count" or len(image.bands) < len(wanted):
            raise
        # An encoder knows nothing of bands that have data nowhere: they were left out when it was
        # trained, perhaps on this very image.
        left = without_empty_bands(image)
        if [band.name for band in left.bands] != [band.name for band in wanted]:
            raise
        return left


def _open_geotiff(path: Path, bands: tuple[str, ...] | None, baseline: str | None) -> SpectralImage:
    source = _geotiff_source(path)
    if source.is_band_folder:
        wanted = list(dict.fromkeys(band for band, _ in source.files if band and band != SCL))
        return open_sentinel2(source, wanted, None, baseline)
    wanted_here = (
        sentinel2_bands(source)
        if bands is None
        else tuple(band for band in bands if band not in ("-", SCL))
    )
    if wanted_here:
        return open_sentinel2(source, wanted_here, bands, baseline)
    return open_geotiff(source)


def _geotiff_source(path: Path) -> ImageSource:
    if not path.is_dir():
        # A name such as flight_B2.tif does not make a file of many bands the file of one.
        return ImageSource(path.stem, path, ((None, named_file(path)),))
    sources, _ = find_sources([path])
    if len(sources) != 1:
        raise InvalidInputError(
            f"{path}: holds {len(sources)} images; name one of them.", kind="invalid-option"
        )
    return sources[0]
