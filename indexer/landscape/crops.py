"""What grows on the land: the calendar and the traits of each crop."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Growth:
    """What grows on a piece of land, and when."""

    name: str
    code: str | None
    """Crop code of the French land parcel register; None for land that nobody declares."""
    cover: tuple[float, float, float]
    """Share of the ground under green leaves in winter, at the peak, and in the end."""
    days: tuple[int, int, int]
    """Days of the year at which half of green-up and of decline is done; their pace in days."""
    straw: float = 0.0
    """Share of the uncovered ground under straw or dry leaves after the decline."""
    cuts: tuple[int, ...] = ()
    """Days of the year at which it is mown."""
    bloom: tuple[int, float] = (0, 0.0)
    """Day of the year of full bloom, and the share of the canopy under petals then."""
    leaves: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors on the leaves' reflectance: visible (pigments), NIR (layers), SWIR (water)."""
    ground: float = 1.0
    """Brightness of the ground against the landscape's soil."""


# Calendars and traits after common agronomy of northern France, rounded; illustrative.
_WHEAT = Growth("winter wheat", "BTH", (0.28, 0.95, 0.05), (85, 179, 7), straw=0.75)
_BARLEY = Growth(
    "winter barley", "ORH", (0.36, 0.93, 0.05), (74, 159, 7), straw=0.7, leaves=(1.2, 1.0, 1.15)
)
_RAPESEED = Growth(
    "rapeseed", "CZH", (0.48, 0.93, 0.08), (66, 172, 8), straw=0.6, bloom=(116, 0.55)
)
_MAIZE = Growth(
    "maize", "MIS", (0.02, 0.94, 0.05), (166, 264, 8), straw=0.5, leaves=(1.0, 0.95, 1.1)
)
_SUNFLOWER = Growth(
    "sunflower", "TRN", (0.02, 0.88, 0.05), (156, 232, 8), bloom=(194, 0.15), leaves=(1.1, 1.1, 1.0)
)
_BEET = Growth("sugar beet", "BTN", (0.02, 0.97, 0.10), (146, 310, 8), leaves=(1.25, 1.18, 0.8))
_GRASSLAND = Growth(
    "grassland", "PPH", (0.62, 0.88, 0.62), (82, 190, 14), cuts=(158,), leaves=(1.0, 0.84, 1.0)
)
_ALFALFA = Growth(
    "alfalfa", "LUZ", (0.3, 0.95, 0.5), (88, 300, 9), cuts=(138, 180, 222), leaves=(1.0, 1.05, 0.9)
)
VERGE = Growth("verge", None, (0.45, 0.75, 0.50), (85, 195, 14), straw=0.6)
TRACK = Growth("track", None, (0.05, 0.15, 0.08), (95, 200, 14), ground=1.15)
WOOD = Growth("wood", None, (0.30, 0.98, 0.30), (112, 300, 8), leaves=(0.7, 0.8, 0.75))

CROP_SHARES = {
    _WHEAT: 0.28,
    _BARLEY: 0.13,
    _RAPESEED: 0.14,
    _MAIZE: 0.14,
    _SUNFLOWER: 0.08,
    _BEET: 0.10,
    _GRASSLAND: 0.09,
    _ALFALFA: 0.04,
}
"""Share of the parcels that each crop stands on."""
