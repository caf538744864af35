"""How a search was answered, and what it cost."""

from dataclasses import asdict
from typing import Any

from indexer.vector_index.effort import check_recall
from retriever.nearest import Catalog, Nearest
from retriever.published import OpenGeneration
from retriever.queries import ParcelFilter
from retriever.selection import describe_selection

_METHODS = {
    "lists": "compressed codes of the nearest lists, the best by their vectors",
    "sketches": "sketches of allowed rows, the best by their vectors",
    "rows": "the vectors of all allowed rows",
    "nothing": "no row is allowed",
}
_METHODS_OF_MILVUS = _METHODS | {"lists": "the vectors of the nearest lists, in Milvus"}


def explained(
    generation: OpenGeneration,
    found: Nearest,
    where: ParcelFilter,
    catalog: Catalog,
    recall: float,
    seconds: tuple[float, float],
) -> dict[str, Any]:
    """JSON form of the plan of a search, and of its cost: seconds of the search and of metadata."""
    plan = found.plan
    measured = generation.index.efforts[check_recall(recall)]
    methods = _METHODS if generation.manifest.backend == "faiss" else _METHODS_OF_MILVUS
    conditions = []
    if not where.is_empty:
        decided = describe_selection(generation.columns, where, catalog.outlines)
        conditions = [asdict(one) for one in decided]
    return {
        "index": generation.index.kind,
        "rows": generation.index.rows,
        "since_publication": {
            "rows": generation.delta.rows,
            "removed": 0 if generation.gone is None else generation.gone.count,
        },
        "recall": check_recall(recall),
        "recall_measured": round(measured.recall_at_10, 4),
        "conditions": conditions,
        "allowed": plan.allowed,
        "method": plan.method,
        "method_means": methods[plan.method],
        "lists": plan.lists,
        "scored": plan.scored,
        "reranked": plan.reranked,
        "search_ms": round(1000 * seconds[0], 3),
        "metadata_ms": round(1000 * seconds[1], 3),
    }
