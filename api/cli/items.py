"""Which items of a catalog are wanted, from the words of the command line."""

from datetime import datetime, timedelta
from typing import TypedDict

# Our intervals end before their last moment, STAC's with it.
_MOMENT = timedelta(milliseconds=1)


class Items(TypedDict):
    """Fields of ``EmbeddingOptions``."""

    bbox: tuple[float, float, float, float] | None
    interval: tuple[datetime | None, datetime | None] | None
    max_cloud_percent: float | None


def items_wanted(bbox: str | None, interval: str | None, max_cloud: float | None) -> Items:
    """Read ``--bbox``, ``--datetime`` and ``--max-cloud``.

    Raises:
        InvalidInputError: ``invalid-bbox`` or ``invalid-datetime``.
    """
    from retriever.queries import Bbox, Interval

    box = None if bbox is None else Bbox.parse(bbox)
    span = None if interval is None else Interval.parse(interval)
    return Items(
        bbox=None if box is None else (box.west, box.south, box.east, box.north),
        interval=None
        if span is None
        else (span.start, None if span.end is None else span.end - _MOMENT),
        max_cloud_percent=max_cloud,
    )
