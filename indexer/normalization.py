"""Reflectance and backscatter to encoder input, from stored statistics only.

No statistic of the batch at hand is ever used, so that a vector does not depend on what else
was embedded beside it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.imagery.chip import FloatArray
from indexer.sensors import MODALITY_BANDS, PROFILES, QUANTIFICATION, Modality

NormalizationName = Literal["ssl4eo", "dataset"]

CLIP_STD = 2.0
"""Standard deviations around the mean that CROMA's pretraining keeps."""

# SSL4EO-S12, which CROMA was pretrained on: Sentinel-2 L2A, in digital numbers without offset, in
# the order of PROFILES["l2a"] (https://github.com/zhu-xlab/SSL4EO-S12,
# src/benchmark/pretrain_ssl/datasets/SSL4EO/ssl4eo_dataset.py).
_SSL4EO_MEAN_DN = (
    752.40, 884.30, 1144.16, 1297.47, 1624.91, 2194.64,
    2422.21, 2517.76, 2581.65, 2645.52, 2368.51, 1805.06,
)  # fmt: skip
_SSL4EO_STD_DN = (
    1108.03, 1155.15, 1183.63, 1368.11, 1370.27, 1355.55,
    1416.51, 1474.79, 1439.31, 1582.28, 1455.52, 1343.48,
)  # fmt: skip

_SSL4EO_MEAN = {
    **dict(zip(PROFILES["l2a"], (dn / QUANTIFICATION for dn in _SSL4EO_MEAN_DN), strict=True)),
    # Sentinel-1 GRD, in dB: the same dataset, the same file.
    "VV": -12.548,
    "VH": -20.192,
}
_SSL4EO_STD = {
    **dict(zip(PROFILES["l2a"], (dn / QUANTIFICATION for dn in _SSL4EO_STD_DN), strict=True)),
    "VV": 5.257,
    "VH": 5.912,
}


@dataclass(frozen=True)
class Normalization:
    """Per-band statistics and what is done with them."""

    name: NormalizationName
    """``ssl4eo`` clips to mean +- 2 std and maps to [0, 1]; ``dataset`` is a plain z-score."""
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    """Mean of each band: reflectance, unitless, or backscatter in dB."""
    std: tuple[float, ...]
    """Standard deviation of each band, in the same units."""

    @classmethod
    def ssl4eo(cls, modality: Modality = "optical") -> "Normalization":
        """The statistics and range that CROMA was pretrained with."""
        bands = MODALITY_BANDS[modality]
        return cls(
            name="ssl4eo",
            bands=bands,
            mean=tuple(_SSL4EO_MEAN[band] for band in bands),
            std=tuple(_SSL4EO_STD[band] for band in bands),
        )

    @classmethod
    def dataset(
        cls,
        bands: tuple[str, ...],
        mean: npt.NDArray[np.float64],
        std: npt.NDArray[np.float64],
    ) -> "Normalization":
        """Z-score with statistics of a run, shape ``(band,)``; a constant band maps to 0."""
        return cls(
            name="dataset",
            bands=bands,
            mean=tuple(float(value) for value in mean),
            std=tuple(float(value) if value > 0 else 1.0 for value in std),
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Normalization":
        """Restore what ``to_dict`` wrote."""
        return cls(
            fields["name"], tuple(fields["bands"]), tuple(fields["mean"]), tuple(fields["std"])
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; part of an embedding space's identity."""
        return {
            "name": self.name,
            "bands": list(self.bands),
            "mean": list(self.mean),
            "std": list(self.std),
            "clip_std": CLIP_STD if self.name == "ssl4eo" else None,
        }

    def fill_gaps(self, reflectance: FloatArray) -> FloatArray:
        """Replace NaN by the band's stored mean: a value that says nothing.

        Args:
            reflectance: Shape ``(band, y, x)``, unitless; backscatter in dB.

        Returns:
            Same shape, without NaN.
        """
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        return np.where(np.isfinite(reflectance), reflectance, mean)

    def apply(self, reflectance: FloatArray) -> FloatArray:
        """Normalize.

        Args:
            reflectance: Shape ``(..., band, y, x)``, unitless, or in dB, without NaN.

        Returns:
            Same shape, float32; within [0, 1] for ``ssl4eo``.
        """
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        if self.name == "dataset":
            return (reflectance - mean) / std
        low, high = mean - CLIP_STD * std, mean + CLIP_STD * std
        clipped: FloatArray = np.clip((reflectance - low) / (high - low), 0.0, 1.0)
        return clipped.astype(np.float32, copy=False)
