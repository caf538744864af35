"""Where the parcels lie, and what grows on each."""

import math
from collections.abc import Iterator

import numpy as np
from shapely import LineString, MultiLineString, Polygon, box
from shapely.ops import split, unary_union

from indexer.landscape.crops import CROP_SHARES, TRACK, VERGE, WOOD, Growth
from indexer.landscape.pieces import Piece
from indexer.landscape.place import NORTH_M, PIXEL_M, WEST_M
from indexer.statistics import Float64Array

_MIN_AREA_M2 = 1_000
_WOODED_SHARE = 0.2


def lay_out(size_px: int, across: int, rng: np.random.Generator) -> tuple[list[Piece], list[Piece]]:
    """The land around the parcels, in the order in which it is painted, and the parcels."""
    nodes = _grid(size_px, across, rng)
    side = size_px * PIXEL_M
    scene = box(WEST_M, NORTH_M - side, WEST_M + side, NORTH_M)
    row, column = 2 * rng.integers(1, across + 2, 2)
    tracks = MultiLineString([nodes[row], nodes[:, column]]).buffer(8)
    surroundings = [Piece(scene, VERGE), Piece(tracks, TRACK)]
    for outline in _rim_outlines(nodes):
        growth = WOOD if rng.random() < _WOODED_SHARE else _random_growths(1, rng)[0]
        surroundings.append(_grown(_within_lanes(outline, rng), growth, rng))
    outlines = [_within_lanes(outline, rng) for outline in _parcel_outlines(nodes, rng)]
    outlines = [outline for outline in outlines if outline.area >= _MIN_AREA_M2]
    growths = _random_growths(len(outlines), rng)
    parcels = [_grown(*pair, rng) for pair in zip(outlines, growths, strict=True)]
    return surroundings, parcels


def _grid(size_px: int, across: int, rng: np.random.Generator) -> Float64Array:
    """Corners of the parcels and the middles of their sides, shape ``(2n + 1, 2n + 1, 2)``.

    ``n`` is ``across`` and 2 more: a rim of parcels that the scene's edge cuts, and that nobody
    declares. All that moves a node adds up to less than the half parcel between the declared
    ones and the edge.

    Returns:
        Map coordinates in meters; corners at even places.
    """
    spacing = size_px * PIXEL_M / (across + 1)
    lines = np.arange(across + 3) - 0.5 + rng.uniform(-0.12, 0.12, (2, across + 3))
    corners = np.stack(np.meshgrid(lines[0], lines[1]), axis=-1)
    corners += rng.uniform(-0.13, 0.13, corners.shape)
    nodes = np.empty((2 * across + 5, 2 * across + 5, 2))
    nodes[::2, ::2] = corners
    nodes[1::2, ::2] = (corners[1:] + corners[:-1]) / 2
    nodes[:, 1::2] = (nodes[:, 2::2] + nodes[:, :-2:2]) / 2
    nodes += rng.uniform(-0.03, 0.03, nodes.shape)
    # Old roads are seldom straight: each line of the grid swings along its way.
    swing = np.sin(np.linspace(0, 2.5 * math.pi, len(nodes)) + rng.uniform(0, 2 * math.pi, (2, 1)))
    nodes[..., 0] += 0.16 * swing[0][:, None]
    nodes[..., 1] += 0.16 * swing[1][None, :]
    nodes *= [spacing, -spacing]
    nodes += [WEST_M, NORTH_M]
    return nodes


def _cell(nodes: Float64Array, row: int, column: int) -> Polygon:
    """The ground between four corners of the grid."""
    part = nodes[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
    return Polygon([*part[0], part[1, 2], *part[2, ::-1], part[1, 0]])


def _rim_outlines(nodes: Float64Array) -> Iterator[Polygon]:
    """The outermost cells, which the scene's edge cuts."""
    last = len(nodes) // 2 - 1
    for row in range(last + 1):
        for column in range(last + 1):
            if {row, column} & {0, last}:
                yield _cell(nodes, row, column)


def _parcel_outlines(nodes: Float64Array, rng: np.random.Generator) -> Iterator[Polygon]:
    """Cells within the rim, row by row: most as they are, a few joined in pairs or divided."""
    last = len(nodes) // 2 - 1
    for row in range(1, last):
        column = 1
        while column < last:
            outline, fate = _cell(nodes, row, column), rng.random()
            if fate < 0.10 and column + 1 < last:
                column += 1
                yield unary_union([outline, _cell(nodes, row, column)])
            elif fate > 0.88:
                yield from _divided(outline, rng)
            else:
                yield outline
            column += 1


def _divided(outline: Polygon, rng: np.random.Generator) -> list[Polygon]:
    """The parts of a parcel between heirs; the smallest may be divided once more."""
    parts = sorted(_cut(outline, rng.choice([0.18, 0.3, 0.5])), key=lambda part: part.area)
    if rng.random() < 0.5:
        parts[:1] = _cut(parts[0], rng.choice([0.3, 0.5]))
    return parts


def _cut(outline: Polygon, share: float) -> list[Polygon]:
    """Cut across the longer side, at a share of its length."""
    corners = np.array(outline.minimum_rotated_rectangle.exterior.coords)[:4]
    if math.dist(corners[0], corners[1]) < math.dist(corners[1], corners[2]):
        corners = np.roll(corners, 1, axis=0)
    start = corners[0] + share * (corners[1] - corners[0])
    end = corners[3] + share * (corners[2] - corners[3])
    # Drawn out beyond both sides, lest rounding leave the cut short of them.
    line = LineString([1.1 * start - 0.1 * end, 1.1 * end - 0.1 * start])
    return list(split(outline, line).geoms)


def _within_lanes(outline: Polygon, rng: np.random.Generator) -> Polygon:
    """What is left inside the lanes around; empty where the lanes take everything."""
    left = outline.buffer(-rng.uniform(4, 8), join_style="mitre")
    return max(getattr(left, "geoms", [left]), key=lambda part: part.area)


def _random_growths(count: int, rng: np.random.Generator) -> list[Growth]:
    """Crops by their shares; where there is room, each stands there twice at least."""
    crops = list(CROP_SHARES)
    sure = 2 * crops if count >= 2 * len(crops) else []
    drawn = rng.choice(len(crops), count - len(sure), p=list(CROP_SHARES.values()))
    growths = sure + [crops[place] for place in drawn]
    return [growths[place] for place in rng.permutation(count)]


def _grown(outline: Polygon, growth: Growth, rng: np.random.Generator) -> Piece:
    """A piece with its own sowing date, vigor and soil."""
    return Piece(
        outline,
        growth,
        days_late=rng.uniform(-8, 8),
        vigor=float(np.clip(rng.normal(1, 0.03), 0.9, 1.04)),
        soil=float(np.clip(rng.normal(1, 0.08), 0.8, 1.2)),
    )
