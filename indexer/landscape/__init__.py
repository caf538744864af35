"""A small synthetic farm landscape, drawn to files: parcels and scenes like Sentinel-2's.

For ``parcelle demo`` and for tests. A pixel is a mixture of soil, straw, leaves and petals; what
a crop's calendar says about a day decides the shares. All numbers are illustrative: typical of
loess soils and common crops of northern France, measured nowhere.
"""

from indexer.landscape.drawing import DATES, MIN_PARCEL_PX, MIN_SIZE_PX, Landscape, draw_landscape

__all__ = ["DATES", "MIN_PARCEL_PX", "MIN_SIZE_PX", "Landscape", "draw_landscape"]
