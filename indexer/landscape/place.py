"""Where the landscape lies: north of Paris, on the pixel grid of Sentinel-2's tile 31UDQ."""

from affine import Affine
from rasterio.crs import CRS

PIXEL_M = 10
"""Side of a pixel in meters, the finest of Sentinel-2."""

UTM_31N = CRS.from_epsg(32631)
"""Reference system of all map coordinates here, in meters."""

WEST_M, NORTH_M = 429_960, 5_460_000
"""Upper left corner of the scenes."""

TRANSFORM = Affine(PIXEL_M, 0, WEST_M, 0, -PIXEL_M, NORTH_M)
"""Pixel to map coordinates."""
