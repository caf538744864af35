"""Colors of classes: the same number always has the same color, and few look alike to anybody."""

from typing import Final

COLORS: Final = tuple(
    "ddcc77 117733 cc6677 88ccee 332288 999933 44aa99 aa4499 882255 009cfc c0e4b4 c09c6c 244824 "
    "3060c0 789cd8 60246c 783c00 b4cccc 307854 846c00 789cb4 24606c 84c09c 7878cc 60903c 543c90 "
    "f0b454 a86090 9cf09c 90e4f0 18c0fc 788454 840c24 4884b4 60d890 b4b4cc 549078 004848 c0d8c0 "
    "e49c60 a83c24 fcd86c 78483c 605484 00a8f0 486018 6c2400 c09c84 84b4e4 c08490".split()
)
"""Colors of classes 1 to 50, ``rrggbb``.

The first nine are the scheme "muted" of Tol (2021), Colour Schemes, SRON/EPS/TN/09-002, as on the
map page. Each of the others, none of them glaring, lies as far as possible from those before it in
CIELAB, as people see them with and without a lack of red or green cones (Machado et al. 2009, IEEE
Transactions on Visualization and Computer Graphics 15(6), 1291-1298).
"""


def class_color(number: int) -> str:
    """The color of a class, ``#rrggbb``; numbers count from 1."""
    return f"#{COLORS[(number - 1) % len(COLORS)]}"


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
