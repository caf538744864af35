"""Images of any number of bands that a command line names, and how they are read for an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.chip import Chip
from indexer.imagery.reader import MAX_CHIP_PX
from indexer.imagery.scanning import files_below, matches, unsafe_name
from indexer.imagery.sentinel2_image import ScenePixels, open_sentinel2
from indexer.imagery.sources import EXTENSIONS, ImageSource, find_sources, time_in_name
from indexer.imagery.spectral_bands import SpectralBand, is_positional
from indexer.imagery.spectral_image import SpectralImage, open_spectral_image, select_bands
from indexer.plain_text import is_plain, plain
from indexer.sensors import PROFILES, SCL, SENTINEL2_BANDS
from indexer.skipped import Skipped

_OTHER_EXTENSIONS = (".hdr", ".npy", ".npz")

MOST_CHIP_VALUES: Final = 2**25
"""Pixels x bands of what is looked at at once: 128 MiB as float32, six times that while read."""


@dataclass(frozen=True)
class SpectralReading:
    """How images are read for an encoder that was trained on certain bands."""

    wanted: tuple[SpectralBand, ...]
    """Bands to read, in order."""
    bands: str | None = None
    """As ``--bands``, for Sentinel-2 GeoTIFFs that do not name theirs."""
    baseline: str | None = None
    """As ``--baseline``."""

    def open(self, source: ImageSource) -> SpectralImage:
        """Open an image and choose the wanted bands, which are then called as the encoder's.

        Of an image that is not Sentinel-2's, a band that bears the name of one of Sentinel-2's is
        renamed, lest a spectral index be computed from it.

        Raises:
            ImageryError: If it cannot be used, or lacks a band.
            InvalidInputError: If the options cannot be (``invalid-bands``, ``invalid-baseline``).
        """
        image = self._opened(source)
        self._refuse_unnamed(image, source)
        image = select_bands(image, self.wanted)
        if is_sentinel2(image):
            return replace(image, source=source, bands=self.wanted)
        renamed = [
            replace(band, name=f"{band.name} (not of Sentinel-2)")
            if band.name in SENTINEL2_BANDS
            else band
            for band in self.wanted
        ]
        return replace(image, source=source, bands=tuple(renamed))

    def _refuse_unnamed(self, image: SpectralImage, source: ImageSource) -> None:
        """Say what helps where bands of Sentinel-2 are wanted and a GeoTIFF names none of its own.

        Raises:
            ImageryError: ``bands-unknown``.
        """
        if (
            _is_geotiff(source.path)
            and all(is_positional(band.name) for band in image.bands)
            and all(band.center_wavelength_um is None for band in image.bands)
            and all(
                band.name in SENTINEL2_BANDS and band.center_wavelength_um is not None
                for band in self.wanted
            )
        ):
            raise ImageryError(
                f"{source.path}: its {len(image.bands)} bands have no names, and bands of "
                f"Sentinel-2 are wanted; name them with --bands ({', '.join(PROFILES)}, or a list "
                "such as B02,B03,B04,B08).",
                kind="bands-unknown",
            )

    def _opened(self, source: ImageSource) -> SpectralImage:
        if source.is_band_folder:
            bands = dict.fromkeys(band for band, _ in source.files if band and band != SCL)
            return open_sentinel2(source, list(bands), None, self.baseline)
        named = self.bands if _is_geotiff(source.path) else None
        return open_spectral_image(source.path, bands=named, baseline=self.baseline)


def is_sentinel2(image: SpectralImage) -> bool:
    """Whether an image is read as Sentinel-2's, whose numbers are reflectance."""
    return isinstance(image.pixels, ScenePixels)


def layer_bands(image: SpectralImage) -> tuple[str, ...] | None:
    """Band of each layer of the file as the options named them; None where the image tells."""
    return image.pixels.scene.layer_bands if isinstance(image.pixels, ScenePixels) else None


def find_spectral_sources(
    imagery: Sequence[str | Path],
) -> tuple[list[ImageSource], list[Skipped]]:
    """Resolve files, folders (searched in depth) and globs to images of any format.

    GeoTIFFs and folders of band files are found as ``find_sources`` does and come first; then come
    ENVI headers and NumPy files, in the order named. What lies in subfolders of a folder that was
    named carries the subfolder's name as class.

    Returns:
        The images, and what was named but cannot be one.

    Raises:
        InvalidInputError: If nothing at all was found (``no-imagery``).
    """
    skipped: list[Skipped] = []
    found = {str(item): _files(Path(item), str(item), skipped) for item in imagery}
    with_tiffs = [item for item, files in found.items() if any(map(_is_geotiff, files))]
    sources, again = find_sources(with_tiffs) if with_tiffs else ([], [])
    skipped += [one for one in again if one not in skipped]
    sources = [_as_file(source) for source in sources]
    named = {file for files in found.values() for file in files}
    for item, files in found.items():
        sources += [
            ImageSource(file.stem, file, ((None, file),), _class_of(file, Path(item)))
            for file in files
            if not _is_geotiff(file) and not _is_described(file, named)
        ]
        if not files and not any(one.source.startswith(item) for one in skipped):
            reason = f"{plain(item)}: no image found there; check the path."
            skipped.append(Skipped(plain(item), "file-not-found", reason))
    if not sources:
        refused = next((one.reason for one in skipped if one.kind != "file-not-found"), "")
        raise InvalidInputError(
            f"No image found in {', '.join(map(str, imagery)) or 'nothing'}. "
            f"{f'{refused} ' if refused else ''}Name GeoTIFF, ENVI "
            "(.hdr) or NumPy (.npy, .npz) files, a folder of them, or a quoted glob.",
            kind="no-imagery",
        )
    return list({(one.path, one.name): one for one in sources}.values()), skipped


def read_whole(path: Path, reading: SpectralReading) -> Chip:
    """Read one image as a whole: a file, or a folder of band files.

    Raises:
        NotFoundError: If there is no such file (``file-not-found``).
        InvalidInputError: If the path names several images (``invalid-option``).
        ImageryError: If it cannot be read, or is far larger than a chip.
    """
    if not path.exists():
        raise NotFoundError(f"{path}: no such file; check the path.", kind="file-not-found")
    sources, _ = find_spectral_sources([path])
    if len(sources) != 1:
        raise InvalidInputError(
            f"{path}: holds {len(sources)} images; name one of them.", kind="invalid-option"
        )
    image = reading.open(sources[0])
    height, width = image.shape
    if height * width * len(image.bands) > MOST_CHIP_VALUES or max(image.shape) > MAX_CHIP_PX:
        raise ImageryError(
            f"{path}: {height} x {width} px of {len(image.bands)} bands are a scene, not a chip "
            f"(at most {MAX_CHIP_PX} px a side and {MOST_CHIP_VALUES:,} values). Cut it to a chip.",
            kind="too-large",
        )
    return image.read()


def any_geotiff(sources: Sequence[ImageSource]) -> bool:
    """Whether a band may be named by ``--bands`` in some image."""
    return any(source.is_band_folder or _is_geotiff(source.path) for source in sources)


def _files(path: Path, pattern: str, skipped: list[Skipped]) -> list[Path]:
    """Images behind a word of the command line; a file is taken whatever it is called."""
    if path.is_file():
        if is_plain(str(path)):
            return [path]
        skipped.append(unsafe_name(path))
        return []
    matched = [path] if path.is_dir() else matches(pattern, _is_image, skipped)
    files: list[Path] = []
    for match in matched:
        if match.is_file():
            files.append(match)
        elif match == path or not match.is_symlink():
            files += files_below(match, _is_image, skipped)
    return files


def _is_image(name: str) -> bool:
    return name.lower().endswith((*EXTENSIONS, *_OTHER_EXTENSIONS))


def _is_geotiff(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS


def _is_described(file: Path, named: set[Path]) -> bool:
    """Whether a file is the numbers of an ENVI header, or a sidecar, that was named beside it."""
    if file.suffix.lower() == ".hdr":
        return False
    headers = (file.with_suffix(".hdr"), file.with_name(f"{file.name}.hdr"))
    sidecar = file.suffix.lower() == ".json" and file.with_suffix(".npy") in named
    numbers = file.suffix.lower() not in _OTHER_EXTENSIONS
    return sidecar or (numbers and any(header in named for header in headers))


def _as_file(source: ImageSource) -> ImageSource:
    """A name such as flight_B2.tif does not make a file of many bands the file of one."""
    if not source.is_band_folder or len(source.files) > 1:
        return source
    ((_, file),) = source.files
    return ImageSource(file.stem, file, ((None, file),), source.class_name)


def _class_of(file: Path, base: Path) -> str | None:
    """The subfolder that an image lies in, unless its name is a date."""
    if not base.is_dir() or file.parent.resolve() == base.resolve():
        return None
    return None if time_in_name(file.parent.name) else file.parent.name
