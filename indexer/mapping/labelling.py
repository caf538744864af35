"""Every pixel gets its class, block by block, while each class is counted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from indexer.mapping.blocks import Source
from indexer.mapping.class_map import MapClass, class_raster
from indexer.mapping.methods import Fitted
from indexer.progress import Progress
from indexer.statistics import BandStatistics

IntArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]


@dataclass
class Tally:
    """What is counted of each class while pixels are labelled, in the order of fitting."""

    spectra: list[BandStatistics]
    feature_sums: npt.NDArray[np.float64]
    """Shape ``(k, d)``."""
    first: list[int]
    """Place of each class's first pixel."""
    keeps_numbers: bool = False
    """Whether classes have numbers already, from 1 in the order of fitting."""

    @property
    def counts(self) -> IntArray:
        """Pixels of each class, shape ``(k,)``."""
        return np.array([one.count.max(initial=0) for one in self.spectra])

    @property
    def order(self) -> list[int]:
        """Classes in the order of their numbers.

        Where they have none yet, those that hold pixels, the largest first; of equals the one that
        begins first.
        """
        if self.keeps_numbers:
            return list(range(len(self.spectra)))
        order = np.lexsort((np.array(self.first), -self.counts))
        return [int(one) for one in order if self.counts[one]]

    @property
    def numbers(self) -> UInt8Array:
        """Final number of each class as it was found, from 1; position 0 is no data."""
        numbers = np.zeros(len(self.spectra) + 1, dtype=np.uint8)
        for number, one in enumerate(self.order, start=1):
            numbers[one + 1] = number
        return numbers


def label_blocks(
    source: Source,
    fitted: Fitted,
    provisional: Path,
    progress: Progress,
    *,
    keep_numbers: bool = False,
) -> Tally:
    """Write the class of every pixel, as fitted, and count.

    Args:
        source: Image and features.
        fitted: The classes.
        provisional: Raster to write, one more than the fitted class; 0 is no data.
        progress: Is told how far the work has come.
        keep_numbers: Do not number classes by their size.
    """
    image = source.image
    bands = tuple(band.name for band in image.bands)
    tally = Tally(
        [BandStatistics.empty(bands) for _ in range(fitted.k)],
        np.zeros((fitted.k, source.sample.shape[1])),
        [image.shape[0] * image.shape[1]] * fitted.k,
        keep_numbers,
    )
    with class_raster(provisional, image.shape, image.transform, image.crs) as raster:
        for block, features in source.blocks(progress, "Labelling"):
            labels = fitted.predict(features)
            area = np.zeros(block.valid.shape, dtype=np.uint8)
            area[block.valid] = labels + 1
            raster.write(area, 1, window=Window.from_slices(*block.tile.slices))
            pixels = block.pixels
            rows, columns = np.nonzero(block.valid)
            places = (rows + block.tile.row) * image.shape[1] + columns + block.tile.column
            for one in np.unique(labels).tolist():
                members = labels == one
                tally.spectra[one].update(pixels[:, members])
                tally.feature_sums[one] += features[members].sum(axis=0, dtype=np.float64)
                tally.first[one] = min(tally.first[one], int(places[members].min()))
    return tally


def map_classes(tally: Tally, pixels: int) -> list[MapClass]:
    """The classes of a map in the order of their numbers, without names.

    Args:
        tally: Of all pixels.
        pixels: Pixels with data.
    """
    found: list[MapClass] = []
    for number, one in enumerate(tally.order, start=1):
        count = int(tally.counts[one])
        if count == 0:
            found.append(MapClass(number, None, 0, 0.0, (), (), ()))
            continue
        spectra = tally.spectra[one]
        found.append(
            MapClass(
                number=number,
                name=None,
                pixels=count,
                share=count / pixels,
                mean=tuple(spectra.mean.tolist()),
                std=tuple(spectra.std.tolist()),
                center=tuple((tally.feature_sums[one] / count).astype(np.float32).tolist()),
            )
        )
    return found
