"""A column of few different values, each with its rows in the order of their times."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.columns.numbers import AnyArray, BoolArray, NumberColumn

Int32Array = npt.NDArray[np.int32]

MISSING: Final = 0
"""The code of rows that have no value."""

MANY_CODES: Final = 8
"""Codes that are looked up in a table; fewer are compared one by one."""

Groups = Mapping[Hashable, tuple[int, ...]]


class CodedColumn:
    """One of few values for each row.

    Args:
        codes: By row, shape ``(n,)``, unsigned; 0 is missing.
        values: By code; the first is None.
        times: The column of the rows' times.
        derived: What ``derived`` gave before; made when it is first asked for where it is not here.
    """

    def __init__(
        self,
        codes: AnyArray,
        values: Sequence[Any],
        times: NumberColumn,
        derived: Mapping[str, AnyArray] | None = None,
    ) -> None:
        self.codes = codes
        self.values = values
        self._times = times
        self._groups: dict[Callable[[Any], Iterable[Hashable]], Groups] = {}
        self.__dict__.update(derived or {})

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where the ranks of each code begin in ``time_ranks``; shape ``(codes + 1,)``."""
        counts = np.bincount(self.codes, minlength=len(self.values))
        return np.concatenate([[0], counts.cumsum()]).astype(np.int64)

    @cached_property
    def time_ranks(self) -> Int32Array:
        """Ranks of the rows' times, ascending for each code, one code after another."""
        return np.argsort(self.codes[self._times.order], kind="stable").astype(np.int32)

    @cached_property
    def _starts(self) -> list[int]:
        found: list[int] = self.offsets.tolist()
        return found

    @cached_property
    def _by_code(self) -> memoryview:
        return self.time_ranks.data

    def derived(self) -> dict[str, AnyArray]:
        """What is made of codes and times, by name, to be kept with them."""
        return {"offsets": self.offsets, "time_ranks": self.time_ranks}

    def groups(self, by: Callable[[Any], Iterable[Hashable]]) -> Groups:
        """Codes by what a function makes of their values; made once for each function.

        Args:
            by: Gives the groups that a value is in; it is not asked about missing ones.
        """
        found = self._groups.get(by)
        if found is None:
            members: dict[Hashable, list[int]] = defaultdict(list)
            for code, value in enumerate(self.values):
                if code != MISSING:
                    for group in by(value):
                        members[group].append(code)
            found = {group: tuple(codes) for group, codes in members.items()}
            self._groups[by] = found
        return found

    def count(self, codes: Iterable[int]) -> int:
        """Rows that have one of some codes."""
        starts = self._starts
        return sum(starts[code + 1] - starts[code] for code in codes)

    def spans(self, codes: Iterable[int], first: int, end: int) -> list[tuple[int, int]]:
        """Where ``time_ranks`` holds the ranks from ``first`` to before ``end`` of some codes."""
        starts, ranks = self._starts, self._by_code
        found = []
        for code in codes:
            start, stop = starts[code], starts[code + 1]
            start = bisect_left(ranks, first, start, stop)
            stop = bisect_left(ranks, end, start, stop)
            if start < stop:
                found.append((start, stop))
        return found

    def rows_in(self, spans: Sequence[tuple[int, int]]) -> Int32Array:
        """Rows at some places of ``time_ranks``; in any order."""
        ranks = self.time_ranks
        if len(spans) != 1:
            parts = [ranks[start:stop] for start, stop in spans]
            return self._times.order.take(np.concatenate(parts) if parts else ranks[:0])
        ((start, stop),) = spans
        return self._times.order.take(ranks[start:stop])

    def mask(self, codes: Sequence[int]) -> BoolArray:
        """Which rows have one of some codes; shape ``(n,)``."""
        return self._are(self.codes, codes)

    def among(self, rows: AnyArray, codes: Sequence[int]) -> BoolArray:
        """Which of some rows have one of some codes; shape of ``rows``."""
        return self._are(self.codes.take(rows), codes)

    def _are(self, found: AnyArray, codes: Sequence[int]) -> BoolArray:
        if len(codes) > MANY_CODES:
            table = np.zeros(len(self.values), dtype=np.bool_)
            table[list(codes)] = True
            looked_up: BoolArray = table[found]
            return looked_up
        if not codes:
            return np.zeros(len(found), dtype=np.bool_)
        mask: BoolArray = found == codes[0]
        for code in codes[1:]:
            mask |= found == code
        return mask


def code_type(values: int) -> npt.DTypeLike:
    """The smallest type for the codes of so many values, the missing one included."""
    return np.min_scalar_type(max(values - 1, 0))
