"""The harness's filters as ours."""

from typing import Any

from benchmarks.vectors.catalog import crop_code, midnight
from retriever.queries import Bbox, Interval, ParcelFilter


def parcel_filter(flt: dict[str, Any]) -> ParcelFilter:
    """A filter of the harness as one of ours.

    Args:
        flt: Any of ``crop`` (a list), ``date`` (first and last day) and ``bbox``.
    """
    bbox, interval = None, None
    if "bbox" in flt:
        west, south, east, north = flt["bbox"]
        bbox = Bbox(west, south, east, north)
    if "date" in flt:
        first, last = flt["date"]
        # Our intervals end before their end, the harness's with their last day.
        interval = Interval(midnight(first), midnight(last + 1), f"days {first} to {last}")
    crops = tuple(map(crop_code, flt.get("crop", ())))
    return ParcelFilter(crops=crops, bbox=bbox, interval=interval)
