"""Which images a training reads: found, opened, and their bands held against each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import InvalidInputError
from indexer.imagery.scanning import files_below, matches, unsafe_name
from indexer.imagery.sources import EXTENSIONS, find_sources
from indexer.imagery.spectral_image import (
    SpectralImage,
    open_spectral_image,
    select_bands,
    without_empty_bands,
)
from indexer.plain_text import is_plain
from indexer.skipped import Skipped

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
    skipped: list[Skipped] = []
    paths = list(dict.fromkeys(path for item in imagery for path in _paths(item, skipped)))
    if not paths:
        named = ", ".join(map(str, imagery)) or "nothing"
        refused = f"{skipped[0].reason} " if skipped else ""
        raise InvalidInputError(
            f"No image found in {named}. {refused}Name GeoTIFF, ENVI (.hdr) or NumPy (.npy, .npz) "
            "files, a folder of them, or a quoted glob.",
            kind="no-imagery",
        )
    images = [open_spectral_image(path, bands=bands, baseline=baseline) for path in paths]
    opened = _alike(list({_files_of(image): image for image in images}.values()))
    told = [f"Left out [{one.kind}] {one.reason}" for one in skipped]
    return OpenedImages(opened.images, [*told, *opened.notes])


def _files_of(image: SpectralImage) -> tuple[Path, ...]:
    """Where its pixels lie; an ENVI image may be named by its header and by its data."""
    return tuple(Path(file).resolve() for _, file in image.source.files)


def _alike(images: Sequence[SpectralImage]) -> OpenedImages:
    """Images with the bands of the first, in its order."""
    first, *others = images
    images = [first, *(select_bands(image, first.bands) for image in others)]
    told = [f"{image.source.name}: {note}." for image in images for note in image.notes]
    return OpenedImages(images, list(dict.fromkeys(told)))


def _paths(item: str | Path, skipped: list[Skipped]) -> Iterator[Path]:
    """The images that a word of the command line names."""
    path = Path(item)
    if path.is_file():
        if is_plain(str(path)):
            yield path
        else:
            skipped.append(unsafe_name(path))
        return
    # Whatever the glob matches is opened, or refused by name when it is.
    matched = [path] if path.is_dir() else matches(str(item), lambda _: True, skipped)
    for match in matched:
        if match.is_file():
            yield match
        elif match == path or not match.is_symlink():
            yield from _below(match, skipped)


def _below(folder: Path, skipped: list[Skipped]) -> Iterator[Path]:
    """The images in a folder, at any depth; a folder of Sentinel-2 bands is one image."""
    files = files_below(folder, _is_image, skipped)
    if any(file.suffix.lower() in EXTENSIONS for file in files):
        sources, _ = find_sources([folder])
        yield from (source.path for source in sources)
    yield from (file for file in files if file.suffix.lower() in _OTHER_EXTENSIONS)


def _is_image(name: str) -> bool:
    return name.lower().endswith((*EXTENSIONS, *_OTHER_EXTENSIONS))
