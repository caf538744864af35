"""Sentinel-2 images as images of any number of bands: reflectance, offset and clouds known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from indexer.errors import ImageryError
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_cube import Pixels, SpectralImage, spectral_image
from indexer.sensors import SENTINEL2_BANDS

# Rows of a block of Sentinel-2 products are at most these; a scene may have several files.
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class ScenePixels:
    """The bands of a scene, as reflectance."""

    scene: Scene

    @property
    def block_rows(self) -> int:
        """Rows that are read together."""
        return _BLOCK_ROWS

    def read(self, layers: Sequence[int], rows: slice, columns: slice) -> Pixels:
        """Read a window; see ``PixelReader``."""
        scene = replace(self.scene, layers=tuple(self.scene.layers[layer] for layer in layers))
        chip = scene.read(
            rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
        )
        return Pixels(chip.reflectance, chip.valid_mask, chip.scl)


def open_sentinel2(
    source: ImageSource, wanted: Sequence[str], bands: tuple[str, ...] | None, baseline: str | None
) -> SpectralImage:
    """Open a Sentinel-2 image through ``Scene``.

    Args:
        source: A file, or a folder of band files.
        wanted: Its bands.
        bands: Of each layer, where the user named them.
        baseline: Processing baseline, where the user named it.

    Raises:
        ImageryError: As ``Scene.open``; ``one-band``; ``missing-band``, if all are of radar.
    """
    optical = tuple(band for band in wanted if band in SENTINEL2_BANDS)
    if not optical:
        raise ImageryError(
            f"{source.location}: its bands {', '.join(wanted)} are of radar, which CROMA reads "
            "(parcelle reindex --modality sar). Give images of Sentinel-2 or other instruments.",
            kind="missing-band",
        )
    scene = Scene.open(source, ReadingOptions(bands, baseline, optical))
    named = [SENTINEL2_BANDS[layer.band] for layer in scene.layers]
    notes = []
    if bands is None and not source.is_band_folder:
        notes.append(
            "its bands are named as Sentinel-2's, so they are read as Sentinel-2 reflectance"
        )
    return spectral_image(
        source,
        ScenePixels(scene),
        scene.shape,
        [SpectralBand(band.name, band.center_wavelength_um, band.fwhm_um) for band in named],
        transform=scene.transform,
        crs=scene.crs,
        acquired_at=scene.acquired_at,
        processing_baseline=scene.processing_baseline,
        notes=notes,
    )
