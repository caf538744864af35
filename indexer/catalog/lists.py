"""Lists of ids in statements."""

from collections.abc import Sequence

MOST_EVENED = 8192
"""Ids of a list that is made longer; SQLite takes 32,766 parameters in a statement
(https://sqlite.org/limits.html)."""


def evened(ids: Sequence[int]) -> Sequence[int]:
    """The same ids in a list whose length is a power of two, the last of them repeated.

    ``IN (...)`` with a list of another length is another statement, which a database prepares anew,
    and every connection keeps the last hundred of them: of lists of a thousand parameters that
    took 100 KiB each. So there are a few statements instead of thousands.
    """
    n = len(ids)
    if not 0 < n <= MOST_EVENED:
        return ids
    return [*ids, *[ids[-1]] * ((1 << (n - 1).bit_length()) - n)]
