"""Manifest: all that is needed to open a generation, or to refuse it."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from indexer.embedding_space import describe_space

INDEX_KIND = "IVF_FLAT"
INDEX_FILE = "index.faiss"
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
    """Largest embedding id; with ``rows`` it tells whether the catalog has moved on."""
    dimensions: int
    index_kind: str
    index_sha256: str
    index_bytes: int
    nlist: int
    nprobe: int
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

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Manifest":
        """Restore what ``to_dict`` wrote."""
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

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

    def to_dict(self) -> dict[str, Any]:
        """JSON form, in short: what it is, how large, how good, and since when."""
        return {
            "generation": self.manifest.generation,
            "space": self.manifest.space,
            "rows": self.manifest.rows,
            "nlist": self.manifest.nlist,
            "nprobe": self.manifest.nprobe,
            "recall_at_10": self.manifest.recall_at_10,
            "projection_recall_at_10": self.manifest.projection_recall_at_10,
            "precision_agreement": self.manifest.precision_agreement,
            "published_at": self.published_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "current": self.current,
        }
