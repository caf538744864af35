"""What is known about an instrument: its bands, their units, the layouts they come in."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from indexer.errors import InvalidInputError

QUANTIFICATION = 10_000
"""Digital numbers per unit of reflectance (Sentinel-2 Products Specification Document)."""

OFFSET_FROM_BASELINE = "04.00"
"""First processing baseline whose digital numbers carry the radiometric offset."""

OFFSET_DN = -1000
"""``BOA_ADD_OFFSET`` / ``RADIO_ADD_OFFSET`` of baselines 04.00 and later, in digital numbers."""

HAND_PROCESSED = "99.99"
"""Baseline of products that somebody processed by hand; it tells nothing about the offset."""

OFFSET_FROM_DATE = datetime(2022, 1, 25, tzinfo=UTC)
"""Day on which baseline 04.00 went into operation; used only where nothing names the baseline."""


@dataclass(frozen=True)
class Band:
    """One spectral band of an instrument."""

    name: str
    """Name in the instrument's own numbering, ``B04``."""
    common_name: str
    """Name in the STAC EO extension, ``red``."""
    center_wavelength_um: float
    """Central wavelength in micrometers (Sentinel-2A spectral response functions)."""
    fwhm_um: float
    """Full width at half maximum in micrometers."""
    gsd_m: int
    """Ground sampling distance in meters."""


SENTINEL2_BANDS: dict[str, Band] = {
    band.name: band
    for band in (
        # https://sentiwiki.copernicus.eu/web/s2-mission, spectral bands of Sentinel-2A
        Band("B01", "coastal", 0.4427, 0.020, 60),
        Band("B02", "blue", 0.4927, 0.065, 10),
        Band("B03", "green", 0.5598, 0.035, 10),
        Band("B04", "red", 0.6646, 0.030, 10),
        Band("B05", "rededge071", 0.7041, 0.014, 20),
        Band("B06", "rededge075", 0.7405, 0.014, 20),
        Band("B07", "rededge078", 0.7828, 0.019, 20),
        Band("B08", "nir", 0.8328, 0.105, 10),
        Band("B8A", "nir08", 0.8647, 0.021, 20),
        Band("B09", "nir09", 0.9451, 0.019, 60),
        Band("B10", "cirrus", 1.3735, 0.029, 60),
        Band("B11", "swir16", 1.6137, 0.090, 20),
        Band("B12", "swir22", 2.2024, 0.174, 20),
    )
}

SCL = "SCL"
"""Scene classification layer of Level-2A; a mask that travels beside the bands."""

_L1C = tuple(SENTINEL2_BANDS)

PROFILES: dict[str, tuple[str, ...]] = {
    # EuroSAT's files hold B8A last (phelber/EuroSAT; confirmed on the values).
    "eurosat": (*(name for name in _L1C if name != "B8A"), "B8A"),
    "l1c": _L1C,
    "l2a": tuple(name for name in _L1C if name != "B10"),
}
"""Band layouts of files that do not name their bands, by the word for ``--bands``."""


def canonical_band(name: str) -> str | None:
    """The canonical name of a Sentinel-2 band, or None.

    Accepts ``B4``, ``b04``, ``B08A``, ``SCL`` and STAC common names such as ``red``.
    """
    word = name.strip()
    if word.upper() == SCL:
        return SCL
    match = re.fullmatch(r"[Bb]0?(\d{1,2})([Aa]?)", word)
    if match:
        number, letter = match.groups()
        candidate = f"B{number}A" if letter else f"B{int(number):02d}"
        return candidate if candidate in SENTINEL2_BANDS else None
    for band in SENTINEL2_BANDS.values():
        if word.lower() == band.common_name:
            return band.name
    return None


def parse_bands(text: str) -> tuple[str, ...]:
    """Read the value of ``--bands``: a profile's name or a comma-separated list of bands.

    Raises:
        InvalidInputError: If the word is no profile and a list entry is no Sentinel-2 band. The
            entry ``-`` stands for a layer of the file that is to be passed over.
    """
    profile = PROFILES.get(text.strip().lower())
    if profile is not None:
        return profile
    names: list[str] = []
    for word in text.split(","):
        name = "-" if word.strip() == "-" else canonical_band(word)
        if name is None:
            raise InvalidInputError(
                f"--bands {text}: {word.strip()!r} is neither a profile ({', '.join(PROFILES)}) "
                f"nor a Sentinel-2 band ({', '.join(SENTINEL2_BANDS)}, {SCL}; '-' passes a "
                "layer over).",
                kind="invalid-bands",
            )
        names.append(name)
    named = [name for name in names if name != "-"]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise InvalidInputError(
            f"--bands {text}: {', '.join(repeated)} is named more than once; name each band once.",
            kind="invalid-bands",
        )
    return tuple(names)


def parse_baseline(text: str) -> str:
    """Normalize a processing baseline: ``4``, ``04.00``, ``0400`` and ``N0400`` are ``04.00``.

    Raises:
        InvalidInputError: If the text is none of these forms.
    """
    match = re.fullmatch(r"[Nn]?(\d{1,2})(?:\.?(\d{2})|\.(\d))?", text.strip())
    if match is None:
        raise InvalidInputError(
            f"--baseline {text}: not a processing baseline; write it as 04.00, 5.10 or N0510.",
            kind="invalid-baseline",
        )
    major, minor, tenth = match.groups()
    return f"{int(major):02d}.{minor or (tenth + '0' if tenth else '00')}"


def offset_dn(baseline: str | None, acquired_at: datetime | None) -> int:
    """Digital numbers to add before dividing by ``QUANTIFICATION``.

    Args:
        baseline: Processing baseline as ``parse_baseline`` returns it, or None if unknown.
        acquired_at: Acquisition time, consulted only where the baseline is unknown.

    Returns:
        ``OFFSET_DN`` from baseline 04.00 on, else 0.
    """
    if baseline is not None:
        return OFFSET_DN if baseline >= OFFSET_FROM_BASELINE else 0
    if acquired_at is not None and acquired_at >= OFFSET_FROM_DATE:
        return OFFSET_DN
    return 0
