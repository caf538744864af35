"""A column of numbers or times, in which ranges are found by rank."""

from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]
RowArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]

NO_TIME: Final = np.iinfo(np.int64).max
"""A time that is not known; it sorts behind all that are."""

# The last of the 256 buckets that a byte can tell holds what is not known.
_BUCKETS: Final = 255

# Of at most this part of all rows, each is looked at by itself sooner than all in their order.
_FEW_SHARE: Final = 64


class NumberColumn:
    """One number for each row: float64 with NaN, or int64 with ``NO_TIME``, for missing ones.

    The rank of a row is its position in the order of the values, missing ones last. A bucket is
    one of 255 spans of ranks of the same size, so that a wide range is a comparison of bytes, put
    right in the two buckets that its ends are in.

    Args:
        values: By row, shape ``(n,)``.
        derived: What ``derived`` gave before; made when it is first asked for where it is not here.
    """

    def __init__(self, values: AnyArray, derived: Mapping[str, AnyArray] | None = None) -> None:
        self.values = values
        # In place of what the properties of these names would make.
        self.__dict__.update(derived or {})

    @cached_property
    def order(self) -> RowArray:
        """Rows by rank, shape ``(n,)``."""
        return np.argsort(self.values, kind="stable").astype(np.int32)

    @cached_property
    def ordered(self) -> AnyArray:
        """Values by rank, shape ``(n,)``."""
        return np.ascontiguousarray(self.values)[self.order]

    @cached_property
    def buckets(self) -> ByteArray:
        """Bucket by row, 0 to 254, and 255 for what is missing; shape ``(n,)``."""
        known = self.known
        found = np.full(len(self.values), _BUCKETS, dtype=np.uint8)
        if known:
            found[self.order[:known]] = np.arange(known) * _BUCKETS // known
        return found

    @cached_property
    def known(self) -> int:
        """Rows whose value is known."""
        if self.values.dtype.kind == "f":
            # NaN sorts last, and is equal to NaN for ``searchsorted``.
            return int(self.ordered.searchsorted(np.nan))
        return int(self.ordered.searchsorted(NO_TIME))

    @cached_property
    def _by_rank(self) -> memoryview:
        # Some searches of single values in it take less than one call of numpy.
        return self.ordered.data

    def derived(self) -> dict[str, AnyArray]:
        """What is made of the values, by name, to be kept with them."""
        return {"order": self.order, "ordered": self.ordered, "buckets": self.buckets}

    def rank(self, value: float) -> int:
        """Rows whose value is known and less."""
        return bisect_left(self._by_rank, value, 0, self.known)

    def ranks(self, first: float | None, end: float | None) -> tuple[int, int]:
        """Ranks of the values from ``first`` to before ``end``; None is open.

        Returns:
            The first rank, and the one after the last; they are equal where there is no value.
        """
        known = self.known
        low = 0 if first is None else bisect_left(self._by_rank, first, 0, known)
        high = known if end is None else bisect_left(self._by_rank, end, low, known)
        return low, high

    def mask(self, first: int, end: int) -> BoolArray:
        """Which rows have a rank from ``first`` to before ``end``; shape ``(n,)``.

        No missing value has such a rank: ``end`` is at most ``known``.
        """
        buckets, known, order = self.buckets, self.known, self.order
        if first >= end:
            return np.zeros(len(buckets), dtype=np.bool_)
        low, high = first * _BUCKETS // known, (end - 1) * _BUCKETS // known
        added = []
        # The buckets of the ends are taken in or left out, whichever leaves less to put right.
        if low < high and _start(low + 1, known) - first < first - _start(low, known):
            low += 1
            added.append(order[first : _start(low, known)])
        if low < high and end - _start(high, known) < _start(high + 1, known) - end:
            added.append(order[_start(high, known) : end])
            high -= 1
        if low == 0:
            found = buckets <= high
        elif high == _BUCKETS - 1 and known == len(buckets):
            found = buckets >= low
        else:
            # Below the first bucket, unsigned bytes come out beyond the last.
            found = (buckets - np.uint8(low)) <= high - low
        start, stop = _start(low, known), _start(high + 1, known)
        if start < first:
            found[order[start:first]] = False
        if end < stop:
            found[order[end:stop]] = False
        for rows in added:
            found[rows] = True
        return found

    def narrow(self, mask: BoolArray, first: int, end: int) -> None:
        """Let ``mask`` be true only where the rank is from ``first`` to before ``end``."""
        if len(mask) - (end - first) > len(mask) // _FEW_SHARE:
            mask &= self.mask(first, end)
            return
        mask[self.order[:first]] = False
        mask[self.order[end:]] = False

    def within(self, rows: AnyArray, first: float | None, end: float | None) -> BoolArray:
        """Which of some rows have a value from ``first`` to before ``end``; shape of ``rows``."""
        values = self.values.take(rows)
        if end is None and values.dtype.kind != "f":
            end = NO_TIME
        if first is None:
            return values == values if end is None else values < end
        found: BoolArray = values >= first
        if end is not None:
            found &= values < end
        return found


def _start(bucket: int, known: int) -> int:
    """The first rank of a bucket."""
    return -(-bucket * known // _BUCKETS)
