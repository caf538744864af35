"""What kind of index some rows get: its lists, the precision of its copies, within a memory."""

import math
from dataclasses import dataclass

from indexer.vector_index.codecs import BYTES_PER_NUMBER, Precision

MIN_TRAINING_POINTS_PER_LIST = 39
"""FAISS warns below this number of training points for each of its lists."""

TRAINING_POINTS_PER_LIST = 40

SEARCHED_WHOLE = 4096
"""Up to so many rows every vector is scored: half a millisecond, and nothing to be tuned."""

SKETCH_DIMENSIONS = 128
"""Leading principal components that a sketch holds, a byte each."""

# Bytes a row beside vectors and sketch: compressed code, ids, lists, columns of the filters.
_OTHER_BYTES_PER_ROW = 240


@dataclass(frozen=True)
class Shape:
    """The parts of an index."""

    nlist: int
    """Inverted lists; 1 where every row is scored."""
    precision: Precision
    """Of the copies of the vectors that have the last word."""
    subquantizers: int
    """Of the compressed codes, 4 bits each; 0 where every row is scored."""
    sketch_dimensions: int
    """0 where every row is scored."""

    def kind(self, dimensions: int) -> str:
        """In the words of FAISS's index factory, as far as it has any."""
        if self.nlist == 1:
            return f"IVF1,Flat({self.precision})"
        return (
            f"IVF{self.nlist},PQ{self.subquantizers}x4fs,Refine({self.precision})"
            f"+PCA{self.sketch_dimensions},SQ8"
        )


def choose_nlist(n: int) -> int:
    """Lists for n rows: the power of two from twice the square root on.

    Scanning a compressed row costs a sixteenth of comparing a centroid, so half as many lists as
    FAISS advises (``4 * sqrt(n)``) are faster here; measured in ``docs/design/0011``.
    """
    if n <= SEARCHED_WHOLE:
        return 1
    nlist: int = 1 << math.ceil(math.log2(2 * math.sqrt(n)))
    return max(1, min(nlist, n // MIN_TRAINING_POINTS_PER_LIST))


def choose_shape(n: int, dimensions: int, memory_bytes: int) -> Shape:
    """The shape of an index.

    Args:
        n: Rows.
        dimensions: Of a vector.
        memory_bytes: What index and columns may take; int8 copies are taken where fp16 ones would
            exceed it.
    """
    nlist = choose_nlist(n)
    if nlist == 1:
        return Shape(1, "fp32", 0, 0)
    sketch = min(SKETCH_DIMENSIONS, dimensions)
    beside = sketch + _OTHER_BYTES_PER_ROW
    whole = n * (dimensions * BYTES_PER_NUMBER["fp16"] + beside)
    return Shape(
        nlist, "fp16" if whole <= memory_bytes else "int8", _subquantizers(dimensions), sketch
    )


def _subquantizers(dimensions: int) -> int:
    """Four dimensions to one code of 4 bits, or as many as divide a vector evenly."""
    return next(m for m in range(max(1, dimensions // 4), 0, -1) if dimensions % m == 0)
