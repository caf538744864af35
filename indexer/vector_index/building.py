"""Build an index's files from vectors that may be more than memory holds."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from indexer.vector_index.codecs import Codec, FloatArray, Vectors, write_index
from indexer.vector_index.index import (
    CENTROID_AXES_FILE,
    CENTROIDS_FILE,
    LISTS_FILE,
    PARAMETERS_FILE,
    SKETCH_AXES_FILE,
    SKETCH_CODEC_FILE,
    SKETCHES_FILE,
    STARTS_FILE,
    VECTOR_CODEC_FILE,
    VECTORS_FILE,
    VectorIndex,
)
from indexer.vector_index.sizing import TRAINING_POINTS_PER_LIST, Shape
from indexer.vector_index.tuning import Tuning, tune

IntArray = npt.NDArray[np.int64]

Note = Callable[[str], None]
"""Told what is being done, in a few words."""

_BLOCK = 50_000
"""Rows that are in memory as float32 at once: 100 MB."""

_SAMPLE = 50_000
"""Vectors that axes and ranges are learned from."""

_RUN = 16
"""Rows in succession that are drawn together from a file."""

_CENTROID_RANK = 128
"""Dimensions that queries are compared with many centroids in. Centroids are means, and so lie
close to a subspace: in 128 of 512 dimensions the 16 nearest of 1,024 are .97 the same, at a third
of the cost."""

_FEW_CENTROIDS = 256
"""Up to so many centroids are compared in all dimensions."""

_KMEANS_ROUNDS = 10

_FEW_ROWS = 20_000
"""Up to so many rows are a matter of a second for one thread. Several would wait for each other at
every small step, and a hundred times as long where other programs have the cores."""


def build_index(
    folder: Path, vectors: Vectors, shape: Shape, *, seed: int = 0, note: Note = lambda _: None
) -> tuple[VectorIndex, IntArray, Tuning]:
    """Write an index's files into a folder, and measure what its searches need.

    Args:
        folder: Exists and is empty; the caller makes it durable.
        vectors: Shape ``(n, d)``, float32 or float16, unit length: an array, in memory or mapped.
            It is read from end to end, in blocks, three times.
        shape: Of the index.
        seed: Of everything that is drawn.
        note: Is told of each step.

    Returns:
        The index as it will be opened, for each of its rows the row of ``vectors``, shape
        ``(n,)``, and what was measured.

    Raises:
        OSError: If it cannot be written, or does not read back as it was.
    """
    faiss.omp_set_num_threads(1 if len(vectors) <= _FEW_ROWS else len(os.sched_getaffinity(0)))
    if shape.nlist == 1:
        order = _build_whole(folder, vectors, shape)
    else:
        order = _build_lists(folder, vectors, shape, seed, note)
    note("measuring")
    tuning = tune(_read_back(folder), vectors, order, seed)
    _write_parameters(folder, vectors.shape, shape, tuning)
    return _read_back(folder), order, tuning


def _read_back(folder: Path) -> VectorIndex:
    """Open what was written; a full disk can leave a short file without any error."""
    try:
        return VectorIndex(folder)
    except (EOFError, RuntimeError, ValueError) as error:
        raise OSError(
            errno.EIO, "what was written does not read back as it was", str(folder)
        ) from error


def _build_whole(folder: Path, vectors: Vectors, shape: Shape) -> IntArray:
    """Files of an index whose rows are all scored."""
    everything = np.ascontiguousarray(vectors, dtype=np.float32)
    codec = Codec.trained(shape.precision, everything)
    codec.write(folder / VECTOR_CODEC_FILE)
    np.save(folder / VECTORS_FILE, codec.encode(everything))
    _write_parameters(folder, vectors.shape, shape, Tuning.exact())
    return np.arange(len(vectors))


def _build_lists(folder: Path, vectors: Vectors, shape: Shape, seed: int, note: Note) -> IntArray:
    n, d = vectors.shape
    note("training")
    # Drawn from all over: lists that were trained on one region fail in another.
    sample = _sample(vectors, TRAINING_POINTS_PER_LIST * shape.nlist, seed)
    quantizer = faiss.IndexFlatIP(d)
    _train_centroids(quantizer, sample, shape.nlist, seed)
    centroids = quantizer.reconstruct_n(0, shape.nlist)
    rank = d if shape.nlist <= _FEW_CENTROIDS else min(d, _CENTROID_RANK)
    centroid_axes = np.eye(d, dtype=np.float32) if rank == d else _principal_axes(centroids, rank)
    reduced = np.ascontiguousarray(centroids @ centroid_axes.T)
    # A row goes where a search will look for it: to the centroid that is nearest in these axes.
    coarse = faiss.IndexFlatIP(rank)
    coarse.add(reduced)
    lists = _trained_lists(quantizer, sample, shape, seed)
    some = sample[:: max(1, len(sample) // _SAMPLE)]
    codec = Codec.trained(shape.precision, some)
    axes = _principal_axes(some, shape.sketch_dimensions)
    sketch_codec = Codec.trained("int8", some @ axes.T)
    del sample, some
    note("assigning")
    assigned = np.empty(n, np.int32)
    for at in range(0, n, _BLOCK):
        block = np.ascontiguousarray(vectors[at : at + _BLOCK], dtype=np.float32)
        assigned[at : at + len(block)] = coarse.search(block @ centroid_axes.T, 1)[1][:, 0]
    order = np.argsort(assigned, kind="stable")
    starts = np.zeros(shape.nlist + 1, np.int64)
    np.cumsum(np.bincount(assigned, minlength=shape.nlist), out=starts[1:])
    note("encoding")
    codes = _reserved(folder / VECTORS_FILE, (n, codec.code_size))
    sketches = _reserved(folder / SKETCHES_FILE, (n, sketch_codec.code_size))
    row_of = np.empty(n, np.int64)
    row_of[order] = np.arange(n)
    # The source is read from end to end: memory may not hold it. What is written is smaller.
    for at in range(0, n, _BLOCK):
        block = np.ascontiguousarray(vectors[at : at + _BLOCK], dtype=np.float32)
        rows, into = row_of[at : at + _BLOCK], assigned[at : at + _BLOCK].astype(np.int64)
        codes[rows] = codec.encode(block)
        sketches[rows] = sketch_codec.encode(block @ axes.T)
        lists.add_core(
            len(block), faiss.swig_ptr(block), faiss.swig_ptr(rows), faiss.swig_ptr(into)
        )
    codes.flush()
    sketches.flush()
    del codes, sketches, row_of
    note("packing")
    # Only the searchable form keeps codes in blocks of 32, and it cannot take lists as given.
    packed = faiss.IndexIVFPQFastScan(lists)
    turned = faiss.LinearTransform(d, rank, False)
    faiss.copy_array_to_vector(centroid_axes.ravel(), turned.A)
    turned.is_trained = True
    quantizer = faiss.IndexPreTransform(turned, coarse)
    packed.quantizer = quantizer
    write_index(packed, folder / LISTS_FILE)
    del lists, packed
    codec.write(folder / VECTOR_CODEC_FILE)
    sketch_codec.write(folder / SKETCH_CODEC_FILE)
    np.save(folder / SKETCH_AXES_FILE, axes)
    np.save(folder / STARTS_FILE, starts)
    np.save(folder / CENTROID_AXES_FILE, centroid_axes)
    np.save(folder / CENTROIDS_FILE, reduced)
    _write_parameters(folder, vectors.shape, shape, Tuning.unknown(shape.nlist))
    return order


def _sample(vectors: Vectors, size: int, seed: int) -> FloatArray:
    """Vectors from all over, in ascending order of their rows; all where there are few."""
    n = len(vectors)
    if n <= size:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    # Each place of a file that memory does not hold costs a millisecond.
    run = _RUN if isinstance(vectors, np.memmap) else 1
    places = np.sort(np.random.default_rng(seed).choice(n // run, size // run, replace=False))
    rows = (run * places[:, None] + np.arange(run)).ravel()
    return np.ascontiguousarray(vectors[rows], dtype=np.float32)


def _train_centroids(
    quantizer: faiss.IndexFlatIP, sample: FloatArray, nlist: int, seed: int
) -> None:
    clustering = faiss.Clustering(sample.shape[1], nlist)
    clustering.seed = seed + 1
    clustering.niter = _KMEANS_ROUNDS
    clustering.spherical = True
    # Few rows are a normal collection here, not a mistake to be warned of on stdout.
    clustering.min_points_per_centroid = 1
    clustering.train(sample, quantizer)


def _trained_lists(
    quantizer: faiss.IndexFlatIP, sample: FloatArray, shape: Shape, seed: int
) -> faiss.IndexIVFPQ:
    """Empty lists of compressed codes: of the vectors, not of what the centroids leave of them."""
    d = sample.shape[1]
    lists = faiss.IndexIVFPQ(
        quantizer, d, shape.nlist, shape.subquantizers, 4, faiss.METRIC_INNER_PRODUCT
    )
    lists.by_residual = False
    lists.pq.cp.seed = seed + 1
    lists.pq.cp.min_points_per_centroid = 1
    lists.train(sample[:: max(1, len(sample) // _SAMPLE)])
    return lists


def _principal_axes(vectors: FloatArray, dimensions: int) -> FloatArray:
    """Orthonormal directions that hold most of the vectors' inner products, shape ``(m, d)``.

    Not centered: what all vectors have in common is part of their products with a query.
    """
    moments = vectors.T.astype(np.float64) @ vectors
    _, directions = np.linalg.eigh(moments)
    return np.ascontiguousarray(directions[:, ::-1][:, :dimensions].T, dtype=np.float32)


def _reserved(
    path: Path, size: tuple[int, int]
) -> "np.memmap[tuple[int, int], np.dtype[np.uint8]]":
    """A new file of ``numpy.save``, mapped.

    All of it is on the disk before it is mapped: a disk that fills up ends a process that writes to
    a mapped file.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": size}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        os.posix_fallocate(file.fileno(), file.tell(), size[0] * size[1])
    codes: np.memmap[tuple[int, int], np.dtype[np.uint8]] = np.load(path, mmap_mode="r+")
    return codes


def _write_parameters(folder: Path, size: tuple[int, int], shape: Shape, tuning: Tuning) -> None:
    rows, dimensions = size
    parameters = {
        "kind": shape.kind(dimensions),
        "rows": rows,
        "dimensions": dimensions,
        "nlist": shape.nlist,
        "efforts": {str(recall): one.to_dict() for recall, one in tuning.efforts.items()},
    }
    (folder / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=2) + "\n")
