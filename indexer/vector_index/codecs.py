"""How vectors are written as bytes, and scored as they are, without decoding them first."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]
"""Shape ``(n, d)``, in memory or mapped."""

Precision = Literal["fp32", "fp16", "int8"]

BYTES_PER_NUMBER: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Codec:
    """Encodes vectors, and makes FAISS's scanners of their codes."""

    index: faiss.IndexIVF
    """Holds no vector, only how one is encoded."""

    @classmethod
    def trained(cls, precision: Precision, sample: FloatArray) -> "Codec":
        """A codec for vectors like those of a sample, shape ``(n, d)``; int8 learns their range."""
        d = sample.shape[1]
        quantizer = faiss.IndexFlatIP(d)
        if precision == "fp32":
            index = faiss.IndexIVFFlat(quantizer, d, 1, faiss.METRIC_INNER_PRODUCT)
        else:
            kind = {
                "fp16": faiss.ScalarQuantizer.QT_fp16,
                "int8": faiss.ScalarQuantizer.QT_8bit,
            }[precision]
            index = faiss.IndexIVFScalarQuantizer(
                quantizer, d, 1, kind, faiss.METRIC_INNER_PRODUCT, False
            )
        # Its one list is never used, and any vector may stand for it.
        index.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(sample))
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> "Codec":
        """What ``write`` wrote."""
        return cls(faiss.read_index(str(path)))

    def write(self, path: Path) -> None:
        """Keep it in FAISS's own format."""
        write_index(self.index, path)

    @property
    def code_size(self) -> int:
        """Bytes of one vector."""
        return int(self.index.code_size)

    def scanner(self) -> faiss.InvertedListScanner:
        """What scores codes against one query; for one thread."""
        scanner = self.index.get_InvertedListScanner(False, None, None)
        return scanner

    def stored(self, codes: ByteArray) -> faiss.Index:
        """Codes that are mapped somewhere as an index by row; the caller keeps them alive.

        Args:
            codes: Shape ``(n, code_size)``, of a codec that is not fp32.
        """
        quantizer = self.index.sq
        index = faiss.IndexScalarQuantizer(
            self.index.d, quantizer.qtype, faiss.METRIC_INNER_PRODUCT
        )
        index.sq = quantizer
        nobody = faiss.MaybeOwnedVectorUInt8().owner
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes), codes.size, nobody
        )
        index.ntotal, index.is_trained = len(codes), True
        return index

    def encode(self, vectors: FloatArray) -> ByteArray:
        """Codes of vectors, shape ``(n, code_size)``."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if isinstance(self.index, faiss.IndexIVFFlat):
            return vectors.view(np.uint8).reshape(len(vectors), -1)
        codes: ByteArray = self.index.sq.compute_codes(vectors)
        return codes

    def decode(self, codes: ByteArray) -> FloatArray:
        """Vectors of codes, shape ``(n, d)``; as exact as the precision."""
        codes = np.ascontiguousarray(codes)
        if isinstance(self.index, faiss.IndexIVFFlat):
            return codes.view(np.float32).reshape(len(codes), -1)
        vectors: FloatArray = self.index.sq.decode(codes)
        return vectors


def write_index(index: faiss.Index, path: Path) -> None:
    """Write a file in FAISS's own format.

    FAISS's own files are closed without an error although the disk was full.
    """
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
