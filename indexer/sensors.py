"""What is known about an instrument: its bands, their units, the layouts they come in."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

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

RADAR_BANDS = ("VV", "VH")
"""What CROMA's radar encoder takes of Sentinel-1, in its order: the polarizations sent and received
(https://sentiwiki.copernicus.eu/web/s1-mission)."""

POLARIZATIONS = (*RADAR_BANDS, "HH", "HV")
"""Every polarization of Sentinel-1; over the sea ice of the poles it sends the horizontal ones."""

_L1C = tuple(SENTINEL2_BANDS)

PROFILES: dict[str, tuple[str, ...]] = {
    # EuroSAT's files hold B8A last (phelber/EuroSAT; confirmed on the values).
    "eurosat": (*(name for name in _L1C if name != "B8A"), "B8A"),
    "l1c": _L1C,
    "l2a": tuple(name for name in _L1C if name != "B10"),
    "s1": RADAR_BANDS,
}
"""Band layouts of files that do not name their bands, by the word for ``--bands``."""

Modality = Literal["optical", "sar", "joint"]
"""What an encoder looks at: Sentinel-2, Sentinel-1, or both in one chip."""

MODALITY_BANDS: Final[dict[Modality, tuple[str, ...]]] = {
    "optical": PROFILES["l2a"],
    "sar": RADAR_BANDS,
    "joint": (*PROFILES["l2a"], *RADAR_BANDS),
}
"""Bands of CROMA's encoders, in the order they take them."""

# Sigma0_VV_db, gamma0-vh, VV_dB; not Amplitude_VV, Intensity_VV or Beta0_VV, which are no
# calibrated backscatter of the ground.
_BACKSCATTER = re.compile(
    r"(?:(?:sigma|gamma)0?[_ -])?(?P<band>VV|VH|HH|HV)(?:[_ -](?:db|linear|power))?", re.IGNORECASE
)
# s1a-iw-grd-vv-20230601t054321-20230601t054346-048789-05de19-001: the last number is the file's.
_SENTINEL1_FILE = re.compile(
    r"(?P<head>s1[a-d]-[a-z0-9]{2}-[a-z]{3})-(?P<band>vv|vh|hh|hv)"
    r"-(?P<tail>\d{8}t\d{6}-\d{8}t\d{6}-[0-9a-f]+-[0-9a-f]+)-\d{3}(?:-cog)?",
    re.IGNORECASE,
)
# NAME_VV, NAME-VH, VV, iw-vv.rtc, NAME_VV_db
_RADAR_FILE = re.compile(
    r"(?:(?P<name>.+?)[_-])??(?:(?:sigma|gamma)0?[_-])?(?P<band>VV|VH|HH|HV)"
    r"(?:[_-](?:db|linear|power))?(?:\.rtc)?",
    re.IGNORECASE,
)


def canonical_band(name: str) -> str | None:
    """The canonical name of a band of Sentinel-2 or a polarization of Sentinel-1, or None.

    Accepts ``B4``, ``b04``, ``B08A``, ``SCL`` and STAC common names such as ``red``; ``vv``,
    ``Sigma0_VH`` and ``VV_dB``.
    """
    word = name.strip()
    if word.upper() == SCL:
        return SCL
    backscatter = _BACKSCATTER.fullmatch(word)
    if backscatter:
        return backscatter["band"].upper()
    match = re.fullmatch(r"[Bb]0?(\d{1,2})([Aa]?)", word)
    if match:
        number, letter = match.groups()
        candidate = f"B{number}A" if letter else f"B{int(number):02d}"
        return candidate if candidate in SENTINEL2_BANDS else None
    for band in SENTINEL2_BANDS.values():
        if word.lower() == band.common_name:
            return band.name
    return None


def radar_file(stem: str) -> tuple[str, str] | None:
    """What the file of one polarization is called.

    Args:
        stem: A file's name without its last ending: ``NAME_VV``, ``NAME_VH_db``, ``iw-vv.rtc``, or
            Sentinel-1's own ``s1a-iw-grd-vv-...-001``.

    Returns:
        The name that the files of an acquisition share, empty where there is none, and the
        polarization; None for the name of another file.
    """
    own = _SENTINEL1_FILE.fullmatch(stem)
    if own:
        return f"{own['head']}-{own['tail']}", own["band"].upper()
    match = _RADAR_FILE.fullmatch(stem)
    if match is None:
        return None
    name = match["name"] or ""
    if re.search(r"(?:^|[_-])(?:VV|VH|HH|HV)$", name, re.IGNORECASE):
        return None  # NAME_VV_VH is a file of both.
    # iw-vv.tiff: the instrument's mode names no acquisition.
    return "" if name.lower() in ("iw", "ew", "sm", "wv") else name, match["band"].upper()


def parse_bands(text: str) -> tuple[str, ...]:
    """Read the value of ``--bands``: a comma-separated list of bands, or of profiles' names.

    ``l2a,s1`` names the twelve bands of Level-2A, then VV and VH; the entry ``-`` stands for a
    layer of the file that is to be passed over.

    Raises:
        InvalidInputError: If a list entry is neither profile nor band, or a band is named twice.
    """
    names: list[str] = []
    for word in text.split(","):
        names.extend(_named_by(word.strip(), text))
    named = [name for name in names if name != "-"]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise InvalidInputError(
            f"--bands {text}: {', '.join(repeated)} is named more than once; name each band once.",
            kind="invalid-bands",
        )
    return tuple(names)


def _named_by(word: str, text: str) -> tuple[str, ...]:
    if word == "-":
        return ("-",)
    profile = PROFILES.get(word.lower())
    if profile is not None:
        return profile
    name = canonical_band(word)
    if name is None:
        raise InvalidInputError(
            f"--bands {text}: {word!r} is neither a profile ({', '.join(PROFILES)}) "
            f"nor a Sentinel-2 band ({', '.join(SENTINEL2_BANDS)}, {SCL}) nor a polarization of "
            f"Sentinel-1 ({', '.join(POLARIZATIONS)}); '-' passes a layer over.",
            kind="invalid-bands",
        )
    return (name,)


def parse_baseline(text: str) -> str:
    """Normalize a processing baseline: ``4``, ``04.00``, ``0400`` and ``N0400`` are ``04.00``.

    Raises:
        InvalidInputError: If the text is none of these forms.
    """
    match = re.fullmatch(r"[Nn]?([0-9]{1,2})(?:\.?([0-9]{2})|\.([0-9]))?", text.strip())
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
