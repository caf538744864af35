"""How many lists a search of a collection looks into, for each recall that may be asked for."""

from dataclasses import dataclass
from typing import Any

from indexer.vector_index.effort import RECALLS


@dataclass(frozen=True)
class Effort:
    """What reaches one recall."""

    recall_at_10: float
    """As measured, against exact search; the query itself excluded."""
    lists: tuple[tuple[int, int], ...]
    """Pairs of numbers: for so many results, lists to look into; ascending, at least one."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Effort":
        """Restore what ``to_dict`` wrote."""
        pairs = tuple((int(k), int(nprobe)) for k, nprobe in fields["lists"])
        return cls(float(fields["recall_at_10"]), pairs)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "recall_at_10": self.recall_at_10,
            "lists": [list(pair) for pair in self.lists],
        }

    @property
    def nprobe(self) -> int:
        """Lists for ten results."""
        return self.lists[0][1]

    def nprobe_for(self, k: int) -> int:
        """Lists for k results."""
        for most, nprobe in self.lists:
            if k <= most:
                return nprobe
        most, nprobe = self.lists[-1]
        return int(nprobe * (k / most) ** 0.5) + 1


def exact() -> dict[float, Effort]:
    """Of a collection whose rows are all scored."""
    return {recall: Effort(1.0, ((10, 1),)) for recall in RECALLS}
