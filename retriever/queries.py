"""Typed questions: which parcels may answer, and how their parts are written."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from indexer.errors import InvalidInputError
from indexer.parcels.parcel import JsonScalar
from retriever.cql2.expression import Expression
from retriever.quoting import quoted

MAX_K = 1000
"""Most matches that one search returns."""

DEFAULT_K = 10

# Python reads more forms of ISO 8601 than these, and would take 20210501 for its first moment.
_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Bbox:
    """A rectangle in degrees; ``west > east`` crosses the antimeridian, as in GeoJSON."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def parse(cls, text: str) -> "Bbox":
        """Read ``west,south,east,north`` in degrees.

        Of six numbers, as OGC API writes a box with heights, the third and the last are left out.

        Raises:
            InvalidInputError: If it is not four or six numbers within range (``invalid-bbox``).
        """
        try:
            numbers = [float(part) for part in text.split(",")]
            if len(numbers) == 6 and math.isfinite(numbers[2]) and math.isfinite(numbers[5]):
                numbers = [*numbers[:2], *numbers[3:5]]
            west, south, east, north = numbers
        except ValueError:
            raise InvalidInputError(
                f"bbox {quoted(text)}: write four numbers, west,south,east,north in degrees.",
                kind="invalid-bbox",
            ) from None
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
            raise InvalidInputError(
                f"bbox {quoted(text)}: longitudes lie within -180 and 180, latitudes within -90 "
                "and 90, and south is not above north; the order is west,south,east,north.",
                kind="invalid-bbox",
            )
        return cls(west, south, east, north)

    def __str__(self) -> str:
        # Seven decimals of a degree are about a centimeter.
        return ",".join(f"{side:.10g}" for side in (self.west, self.south, self.east, self.north))


@dataclass(frozen=True)
class Interval:
    """A span of time, start included, end excluded; None is open."""

    start: datetime | None
    end: datetime | None
    text: str
    """As it was written."""

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Read an instant or interval as OGC API writes them.

        ``2021-05-01/2021-06-30``, ``2021-05-01/..``, ``../2021-06``, ``2021-05-01T10:00:00Z``.
        A date, month or year stands for all of it, also as the end of an interval. Times without
        a zone are UTC.

        Raises:
            InvalidInputError: If it is none of these, or ends before it starts.
        """
        first, slash, last = text.strip().partition("/")
        if not slash:
            last = first
        start = None if slash and first in ("", "..") else _span(first, text)[0]
        end = None if slash and last in ("", "..") else _span(last, text)[1]
        if start is not None and end is not None and end <= start:
            raise InvalidInputError(
                f"datetime {quoted(text)}: it ends before it starts.", kind="invalid-datetime"
            )
        return cls(start, end, text.strip())

    def __str__(self) -> str:
        return self.text


def _span(part: str, text: str) -> tuple[datetime, datetime]:
    """First moment of a date or time, and the first moment after it."""
    try:
        if _YEAR.fullmatch(part):
            start = datetime(int(part), 1, 1, tzinfo=UTC)
            return start, start.replace(year=start.year + 1)
        if _MONTH.fullmatch(part):
            start = datetime.fromisoformat(f"{part}-01").replace(tzinfo=UTC)
            return start, (start + timedelta(days=32)).replace(day=1)
        if _DAY.fullmatch(part):
            start = datetime.fromisoformat(part).replace(tzinfo=UTC)
            return start, start + timedelta(days=1)
        if _TIME.fullmatch(part):
            moment = datetime.fromisoformat(part.upper())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            # Times are kept to the microsecond; the next one is the first that is outside.
            return moment, moment + timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise _no_datetime(text) from None
    raise _no_datetime(text)


def _no_datetime(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"datetime {quoted(text)}: write a date or time as 2021-05-01 or 2021-05-01T10:30:00Z, or "
        "an interval as 2021-05-01/2021-06-30, with .. for an open end.",
        kind="invalid-datetime",
    )


@dataclass(frozen=True)
class ParcelFilter:
    """Conditions on the parcels and observations that may be returned; all must hold."""

    collections: tuple[str, ...] = ()
    """Empty means every collection of the same space."""
    crops: tuple[str, ...] = ()
    """Crop codes or names, compared without case; any of them."""
    bbox: Bbox | None = None
    """The parcel's bounding box touches it."""
    interval: Interval | None = None
    """The observation was acquired in it; observations without a time are not."""
    attributes: tuple[tuple[str, JsonScalar], ...] = ()
    """Names and values of attributes, all of which the parcel has; text is compared without
    case."""
    text: str | None = None
    """Words, all of which stand in the parcel's id, crop or attributes, compared without case."""
    expression: Expression | None = None
    """Whatever else parcel and observation fulfill, in CQL2."""

    @property
    def words(self) -> tuple[str, ...]:
        """The different words of the text."""
        return tuple(dict.fromkeys((self.text or "").split()))

    @property
    def is_empty(self) -> bool:
        """Whether it lets everything through."""
        return not (
            self.collections
            or self.crops
            or self.bbox
            or self.interval
            or self.attributes
            or self.words
            or self.expression
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form; only the conditions that were given."""
        fields = {
            "collections": list(self.collections) or None,
            "crops": list(self.crops) or None,
            "bbox": None if self.bbox is None else str(self.bbox),
            "datetime": None if self.interval is None else str(self.interval),
            "attributes": dict(self.attributes) or None,
            "text": self.text,
            "filter": None if self.expression is None else self.expression.text,
        }
        return {name: value for name, value in fields.items() if value is not None}


def check_k(k: int, name: str = "k", what: str = "matches") -> int:
    """Return a number of results if it is usable.

    Args:
        k: The number.
        name: What it is called.
        what: What the results are.

    Raises:
        InvalidInputError: If it is below 1 or above ``MAX_K`` (``invalid-k``).
    """
    if not 1 <= k <= MAX_K:
        raise InvalidInputError(
            f"{name} is {k}; ask for at least 1 and at most {MAX_K} {what}.", kind="invalid-k"
        )
    return k
