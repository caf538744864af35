"""How far a search looks, for each recall that may be asked for, as measured when it was built."""

from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any

from indexer.errors import InvalidInputError

RECALLS = (0.9, 0.95, 0.99)
"""recall@10 that a query may ask for."""

DEFAULT_RECALL = 0.95


@dataclass(frozen=True)
class Effort:
    """What reaches one recall."""

    nprobe: int
    """Lists that a search without a filter looks into."""
    depth: int
    """Candidates whose exact scores decide."""
    recall_at_10: float
    """As measured with these, against exact search; the query itself excluded."""
    sketch_depth: int
    """Candidates of a scan of sketches whose exact scores decide."""
    looked_at: tuple[tuple[int, int], ...]
    """Pairs of numbers: of so many rows that a filter leaves, so many must be scored, the nearest
    lists first; ascending."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Effort":
        """Restore what ``to_dict`` wrote."""
        pairs = tuple((int(of), int(some)) for of, some in fields["looked_at"])
        return cls(**{**fields, "looked_at": pairs})

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "looked_at": [list(pair) for pair in self.looked_at]}

    def look_at(self, count: int) -> int:
        """Rows to score of as many as a filter leaves: all of few, a share of many."""
        points = self.looked_at
        place = bisect_left(points, (count, 0))
        if place == 0:
            return count
        if place == len(points):
            # The more of all rows are left, the more of them are near the query.
            return points[-1][1] if points else count
        (low, few), (high, many) = points[place - 1], points[place]
        return few + (many - few) * (count - low) // (high - low)


def check_recall(recall: float) -> float:
    """Return a recall that may be asked for: the smallest that is enough.

    Raises:
        InvalidInputError: If it is not between 0 and 0.99 (``invalid-recall``).
    """
    if recall in RECALLS:
        return recall
    for one in RECALLS:
        if 0 < recall <= one:
            return one
    raise InvalidInputError(
        f"recall is {recall}; ask for one of {', '.join(map(str, RECALLS))}.",
        kind="invalid-recall",
    )
