"""A set of an index's rows: a short sorted list, or a bitmap."""

from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
WordArray = npt.NDArray[np.uint64]

_WORD = 64


@dataclass(frozen=True, eq=False)
class RowSet:
    """Some of the rows 0 to ``total - 1`` of an index.

    Made by ``of_rows``, ``of_mask`` or ``of_words``; either form is made from the other when it is
    asked for, and kept.
    """

    total: int
    """Rows of the index."""
    count: int
    """Rows of the set."""
    _rows: IntArray | None
    _words: WordArray | None

    @classmethod
    def of_rows(cls, rows: IntArray, total: int) -> "RowSet":
        """From different rows in ascending order, shape ``(n,)``."""
        return cls(total, len(rows), rows, None)

    @classmethod
    def of_mask(cls, mask: BoolArray) -> "RowSet":
        """From one truth value for each row of the index."""
        return cls.of_words(words_of(mask), len(mask))

    @classmethod
    def of_words(cls, words: WordArray, total: int) -> "RowSet":
        """From a bitmap: row r is bit ``r % 64`` of word ``r // 64``; no bit beyond is set."""
        return cls(total, int(np.bitwise_count(words).sum(dtype=np.int64)), None, words)

    @cached_property
    def rows(self) -> IntArray:
        """The rows in ascending order, shape ``(count,)``."""
        if self._rows is not None:
            return self._rows
        return rows_in(self.words)

    @cached_property
    def words(self) -> WordArray:
        """The bitmap, shape ``(ceil(total / 64),)``."""
        if self._words is not None:
            return self._words
        mask = np.zeros(self.total, dtype=np.bool_)
        mask[self.rows] = True
        return words_of(mask)

    @cached_property
    def selector(self) -> faiss.IDSelectorBitmap:
        """The set as FAISS asks whether a row is in it; valid as long as the set is."""
        content = self.words.view(np.uint8)
        return faiss.IDSelectorBitmap(len(content), faiss.swig_ptr(content))

    @property
    def is_listed(self) -> bool:
        """Whether it was made of a list of rows."""
        return self._rows is not None

    @cached_property
    def complement(self) -> "RowSet":
        """All other rows of the index."""
        words = ~self.words
        beyond = self.total % _WORD
        if beyond:
            words[-1] &= np.uint64((1 << beyond) - 1)
        return RowSet.of_words(words, self.total)

    def without(self, removed: WordArray) -> "RowSet":
        """The rows whose bit is not set in another bitmap."""
        if self._rows is not None:
            bits = removed[self._rows >> 6] >> (self._rows & 63).astype(np.uint64)
            return RowSet.of_rows(self._rows[(bits & np.uint64(1)) == 0], self.total)
        return RowSet.of_words(self.words & ~removed, self.total)


def words_of(mask: BoolArray) -> WordArray:
    """A bitmap of truth values: bit ``r % 64`` of word ``r // 64`` is value r."""
    packed = np.zeros(-(-len(mask) // _WORD) * 8, dtype=np.uint8)
    packed[: -(-len(mask) // 8)] = np.packbits(mask, bitorder="little")
    return packed.view("<u8")


def rows_in(words: WordArray) -> IntArray:
    """The rows whose bit is set, in ascending order."""
    # Seen as truth values they are looked through five times as fast as as numbers.
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)
    return np.flatnonzero(bits)
