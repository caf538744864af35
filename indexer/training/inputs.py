"""Which images a training reads: found, opened, and their bands held against each other."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import InvalidInputError
from indexer.imagery.sources import EXTENSIONS, find_sources
from indexer.imagery.spectral_image import (
    SpectralImage,
    open_spectral_image,
    select_bands,
    without_empty_bands,
)

_OTHER_EXTENSIONS = (".hdr", ".npy", ".npz")


@dataclass(frozen=True)
class OpenedImages:
    """Images of the same bands in the same order."""

    images: list[SpectralImage]
    notes: list[str]
    """What must be said of them."""

    def without_empty_bands(self) -> "OpenedImages":
        """The same images without bands that have data nowhere in the first.

        Raises:
            ImageryError: If no pixel of the first is valid even so (``no-valid-pixels``).
        """
        return _alike([without_empty_bands(self.images[0]), *self.images[1:]])


def open_images(
    imagery: Sequence[str | Path], bands: str | None, baseline: str | None
) -> OpenedImages:
    """Find and open the images to train on.

    Args:
        imagery: Files, folders (searched in depth) and globs.
        bands: Band of each layer, for GeoTIFF files that do not say; as ``--bands``.
        baseline: Sentinel-2 processing baseline; as ``--baseline``.

    Returns:
        The images, each once, with the bands of the first.

    Raises:
        InvalidInputError: If there is none (``no-imagery``).
        ImageryError: If one cannot be read, has one band (``one-band``) or other bands than the
            first.
    """
    paths = list(dict.fromkeys(path for item in imagery for path in _paths(item)))
    if not paths:
        named = ", ".join(map(str, imagery)) or "nothing"
        raise InvalidInputError(
            f"No image found in {named}. Name GeoTIFF, ENVI (.hdr) or NumPy (.npy, .npz) files, a "
            "folder of them, or a quoted glob.",
            kind="no-imagery",
        )
    images = [open_spectral_image(path, bands=bands, baseline=baseline) for path in paths]
    return _alike(list({_files_of(image): image for image in images}.values()))


def _files_of(image: SpectralImage) -> tuple[Path, ...]:
    """Where its pixels lie; an ENVI image may be named by its header and by its data."""
    return tuple(Path(file).resolve() for _, file in image.source.files)


def _alike(images: Sequence[SpectralImage]) -> OpenedImages:
    """Images with the bands of the first, in its order."""
    first, *others = images
    images = [first, *(select_bands(image, first.bands) for image in others)]
    told = [f"{image.source.name}: {note}." for image in images for note in image.notes]
    return OpenedImages(images, list(dict.fromkeys(told)))


def _paths(item: str | Path) -> Iterator[Path]:
    """The images that a word of the command line names."""
    path = Path(item)
    if path.is_file():
        yield path
        return
    matches = [path] if path.is_dir() else [Path(it) for it in sorted(glob.glob(str(item)))]
    for match in matches:
        yield from _below(match) if match.is_dir() else [match]


def _below(folder: Path) -> Iterator[Path]:
    """The images in a folder, at any depth; a folder of Sentinel-2 bands is one image."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if any(file.suffix.lower() in EXTENSIONS for file in files):
        sources, _ = find_sources([folder])
        yield from (source.path for source in sources)
    yield from (file for file in files if file.suffix.lower() in _OTHER_EXTENSIONS)
