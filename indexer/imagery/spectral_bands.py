"""Bands of any instrument: what they are called, where they lie, how those of two images meet."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from indexer.errors import ImageryError

RED_UM, GREEN_UM, BLUE_UM = 0.665, 0.560, 0.490
"""Where true color looks for its bands, in micrometers: near Sentinel-2's B04, B03 and B02."""

_VISIBLE_TOLERANCE_UM: Final = 0.05

# Shares of a micrometer, by the words that headers use.
_UNITS_UM: Final = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometers": 1e-3,
    "nanometre": 1e-3,
    "nanometres": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "micrometre": 1.0,
    "micrometres": 1.0,
}
_UNSTATED: Final = frozenset({"", "unknown", "none", "n/a"})
# No optical instrument measures beyond 100 um, and none that images land below 100 nm.
_NM_FROM: Final = 100.0

# Headers round wavelengths to a nanometer.
_LEAST_TOLERANCE_UM: Final = 0.0005
# Two bands further apart than this do not see the same, however few bands an image has.
_GREATEST_TOLERANCE_UM: Final = 0.025

_POSITIONAL = re.compile(r"(?:band|layer|channel)?[\s_#-]*\d+", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_MAX_NAME: Final = 80


@dataclass(frozen=True)
class SpectralBand:
    """One band of one image."""

    name: str
    """As the file names it, else its wavelength (``551.2 nm``), else its place (``band 7``)."""
    center_wavelength_um: float | None
    """Central wavelength in micrometers; None where nothing tells it."""
    fwhm_um: float | None = None
    """Full width at half maximum in micrometers; None where nothing tells it."""


def wavelengths_um(
    values: Sequence[float], units: str | None
) -> tuple[list[float | None], str | None, float]:
    """Wavelengths in micrometers.

    Args:
        values: As the file has them, one for each band; what is not positive is not known.
        units: As the file names them; None where it does not.

    Returns:
        The wavelengths; a note where units were guessed or cannot be used; and the share of a
        micrometer that a unit is.
    """
    known = [value for value in values if 0 < value < float("inf")]
    if not known:
        return [None] * len(values), None, 1.0
    word = (units or "").strip().lower()
    looks_nm = median(known) >= _NM_FROM
    guess, name = (1e-3, "nm") if looks_nm else (1.0, "um")
    note = None
    if word in _UNSTATED:
        share = guess
        note = f"no wavelength units: {known[0]:g} to {known[-1]:g} taken as {name}"
    elif word not in _UNITS_UM:
        return (
            [None] * len(values),
            f"wavelengths in {units!r} are passed over: write them in nm or um",
            1.0,
        )
    else:
        share = _UNITS_UM[word]
        # Headers that copy the units of a template are common.
        if share != guess:
            share = guess
            note = (
                f"wavelengths of {known[0]:g} to {known[-1]:g} cannot be {units}: taken as {name}"
            )
    usable = [value * share if 0 < value < float("inf") else None for value in values]
    return usable, note, share


def named_bands(
    count: int,
    names: Sequence[str | None] | None = None,
    wavelengths: Sequence[float | None] | None = None,
    fwhm: Sequence[float | None] | None = None,
) -> tuple[SpectralBand, ...]:
    """Bands with a name each, none twice.

    Args:
        count: Number of bands.
        names: As the file has them; a mere number tells less than a wavelength.
        wavelengths: In micrometers.
        fwhm: In micrometers.
    """
    wavelengths = wavelengths or [None] * count
    fwhm = fwhm or [None] * count
    given = [_clean(name) for name in names or [None] * count]
    chosen = [
        name or (f"band {position + 1}" if at is None else f"{round(at * 1000, 2):g} nm")
        for position, (name, at) in enumerate(zip(given, wavelengths, strict=True))
    ]
    times = Counter(chosen)
    unique = [
        name if times[name] == 1 else f"{name} (band {position + 1})"
        for position, name in enumerate(chosen)
    ]
    return tuple(map(SpectralBand, unique, wavelengths, fwhm))


def _clean(name: str | None) -> str | None:
    word = _UNPRINTABLE.sub(" ", name or "").strip()[:_MAX_NAME]
    return None if not word or is_positional(word) else word


def is_positional(name: str) -> bool:
    """Whether a name says no more than where the band stands, as ``band 7`` does."""
    return _POSITIONAL.fullmatch(name.strip()) is not None


def visible_bands(bands: Sequence[SpectralBand]) -> tuple[int, int, int] | None:
    """Positions of the bands nearest to red, green and blue; None where there are none near."""
    known = {
        position: band.center_wavelength_um
        for position, band in enumerate(bands)
        if band.center_wavelength_um is not None
    }
    if not known:
        return None

    def nearest(target: float) -> int:
        return min(known, key=lambda position: abs(known[position] - target))

    red, green, blue = nearest(RED_UM), nearest(GREEN_UM), nearest(BLUE_UM)
    far = max(abs(known[red] - RED_UM), abs(known[green] - GREEN_UM), abs(known[blue] - BLUE_UM))
    return (
        None if far > _VISIBLE_TOLERANCE_UM or len({red, green, blue}) < 3 else (red, green, blue)
    )


# Matching ---------------------------------------------------------------------------------------


def match_bands(
    path: str, found: Sequence[SpectralBand], wanted: Sequence[SpectralBand]
) -> tuple[int, ...]:
    """Where the wanted bands lie among those of an image.

    Names decide where the image has all of them and no wavelengths speak against it; else
    wavelengths, each within half the spacing of the wanted bands; else, where one side has no
    wavelengths, the position, if both have equally many bands.

    Args:
        path: Of the image, for messages.
        found: The image's bands.
        wanted: The bands to find, in order.

    Returns:
        A position in ``found`` for each of ``wanted``.

    Raises:
        ImageryError: ``missing-band``, ``no-wavelengths`` or ``band-count``.
    """
    by_name = _by_name(found, wanted)
    if by_name is not None:
        return by_name
    if all(band.center_wavelength_um is not None for band in wanted) and any(
        band.center_wavelength_um is not None for band in found
    ):
        return _by_wavelength(path, found, wanted)
    return _by_position(path, found, wanted)


def _by_name(
    found: Sequence[SpectralBand], wanted: Sequence[SpectralBand]
) -> tuple[int, ...] | None:
    positions = {band.name: position for position, band in enumerate(found)}
    if not all(band.name in positions and not is_positional(band.name) for band in wanted):
        return None
    chosen = tuple(positions[band.name] for band in wanted)
    pairs = zip(
        (found[position] for position in chosen), wanted, tolerances_um(wanted), strict=True
    )
    return chosen if all(_agree(one, other, within) for one, other, within in pairs) else None


def _agree(one: SpectralBand, other: SpectralBand, within_um: float) -> bool:
    if one.center_wavelength_um is None or other.center_wavelength_um is None:
        return True
    return abs(one.center_wavelength_um - other.center_wavelength_um) <= within_um


def tolerances_um(bands: Sequence[SpectralBand]) -> list[float]:
    """How far from each band another may lie to stand for it: half the way to its neighbor.

    Never more than half its width, or 25 nm where that is narrower; never less than what headers
    round away.
    """
    known = sorted(
        {band.center_wavelength_um for band in bands if band.center_wavelength_um is not None}
    )
    tolerances = []
    for band in bands:
        others = [abs(at - (band.center_wavelength_um or 0)) for at in known]
        spacing = min((gap for gap in others if gap > 0), default=float("inf"))
        widest = max((band.fwhm_um or 0) / 2, _GREATEST_TOLERANCE_UM)
        tolerances.append(max(min(spacing / 2, widest), _LEAST_TOLERANCE_UM))
    return tolerances


def _by_wavelength(
    path: str, found: Sequence[SpectralBand], wanted: Sequence[SpectralBand]
) -> tuple[int, ...]:
    free = {
        position: band.center_wavelength_um
        for position, band in enumerate(found)
        if band.center_wavelength_um is not None
    }
    chosen: list[int] = []
    missing: list[str] = []
    for band, within in zip(wanted, tolerances_um(wanted), strict=True):
        target = band.center_wavelength_um or 0.0
        nearest = min(free, key=lambda position: abs(free[position] - target), default=None)
        # A wavelength in the middle of two bands is within reach of both, whatever is rounded.
        if nearest is None or abs(free[nearest] - target) > within * (1 + 1e-9):
            missing.append(band.name)
            continue
        del free[nearest]
        chosen.append(nearest)
    if missing:
        known = [band.center_wavelength_um for band in found if band.center_wavelength_um]
        raise ImageryError(
            f"{path}: {len(missing)} of {len(wanted)} wanted bands are missing "
            f"({_listed(missing)}); it has {len(found)} bands from {min(known) * 1000:.0f} to "
            f"{max(known) * 1000:.0f} nm. Use an image of the same instrument.",
            kind="missing-band",
        )
    return tuple(chosen)


def _by_position(
    path: str, found: Sequence[SpectralBand], wanted: Sequence[SpectralBand]
) -> tuple[int, ...]:
    if len(found) != len(wanted):
        raise ImageryError(
            f"{path}: it has {len(found)} bands, but {len(wanted)} are wanted, and without "
            "wavelengths on both sides nothing tells which are the same. Use an image of the same "
            "bands, or state the wavelengths of both.",
            kind="band-count",
        )
    pairs = list(zip(found, wanted, tolerances_um(wanted), strict=True))
    with_one_side = [
        other.name
        for one, other, _ in pairs
        if (one.center_wavelength_um is None) != (other.center_wavelength_um is None)
    ]
    if with_one_side:
        raise ImageryError(
            f"{path}: wavelengths are known of its bands or of the wanted ones, but not of both "
            f"({_listed(with_one_side)}), so nothing tells whether they are the same. State the "
            "wavelengths in the header or sidecar of both.",
            kind="no-wavelengths",
        )
    apart = [other.name for one, other, within in pairs if not _agree(one, other, within)]
    if apart:
        raise ImageryError(
            f"{path}: its bands lie at other wavelengths than the wanted ones ({_listed(apart)}). "
            "Use an image of the same instrument.",
            kind="missing-band",
        )
    return tuple(range(len(found)))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
