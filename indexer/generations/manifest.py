"""Manifest: all that is needed to open a generation, or to refuse it."""

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from indexer.embedding_space import describe_space

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Description of one published generation; also stored in SQL."""

    generation: int
    space_digest: str
    recipe: dict[str, Any]
    projection: str
    """How the projection came about: ``pca``, ``orthonormal`` or ``padding``."""
    rows: int
    last_id: int
    """Largest embedding id."""
    dimensions: int
    index_kind: str
    """Lists, compressed codes and copies, as ``vector_index.sizing.Shape.kind`` says."""
    nlist: int
    nprobe: int
    """Lists that a search without a filter looks into, for a recall of .95."""
    recall_at_10: float
    """Against exact search, on ``recall_queries`` stored vectors, each without itself."""
    recall_queries: int
    projection_recall_at_10: float | None
    """Share of the 10 nearest neighbors at full length that the projection keeps, exact search
    and the same centering on both sides; None for fewer than two rows."""
    projection_rows: int
    """Embeddings that figure was measured on."""
    created_at: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    precision_agreement: dict[str, Any] | None = None
    """How well the space's precision agrees with fp32, as ``Agreement.to_dict`` says; None where it
    is fp32, or was not measured."""
    last_change: int = 0
    """Number of the last change of the catalog that the generation holds."""
    imbalance: float = 1.0
    """How unevenly rows fill the lists: times the codes that are scanned, beside even lists."""
    efforts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By recall what reaches it, as ``vector_index.effort.Effort.to_dict`` says."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``bytes`` and ``sha256`` of each file of its folder; none in generations of before there
    were several."""
    collections: list[str] = field(default_factory=list)
    """Those that are searched in its space since it was published, in alphabetical order; none in
    generations of before they were written down."""
    backend: str = "faiss"
    """What holds its vectors: ``faiss``, files of its folder; ``milvus``, a collection there."""

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Manifest":
        """Restore what ``to_dict`` wrote, of this version or an earlier one."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(int(one["bytes"]) for one in self.files.values())

    @property
    def space(self) -> dict[str, Any]:
        """The short form of the space that stands in every answer."""
        return describe_space(self.recipe, self.space_digest)


@dataclass(frozen=True)
class Published:
    """A generation as a list of them shows it."""

    manifest: Manifest
    published_at: datetime
    current: bool
    """Whether it answers searches now."""
    since_publication: dict[str, Any] | None = None
    """Of one that answers: ``rows`` that were added since, rows that were ``removed``, and whether
    a compaction is ``due``; None where nobody asked, or where it cannot be read."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, in short: what it is, how large, how good, and since when."""
        return {
            "generation": self.manifest.generation,
            "space": self.manifest.space,
            "rows": self.manifest.rows,
            "index_kind": self.manifest.index_kind,
            "nlist": self.manifest.nlist,
            "nprobe": self.manifest.nprobe,
            "recall_at_10": self.manifest.recall_at_10,
            "imbalance": self.manifest.imbalance,
            "projection_recall_at_10": self.manifest.projection_recall_at_10,
            "precision_agreement": self.manifest.precision_agreement,
            "published_at": self.published_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "current": self.current,
            "since_publication": self.since_publication,
        }
