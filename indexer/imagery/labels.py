"""Labels of an image's pixels, for measuring what was found without them."""

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from indexer.errors import ImageryError
from indexer.imagery.envi import HEADER, is_envi_data, read_envi
from indexer.imagery.geotiff_image import open_alone
from indexer.imagery.hardening import check_geotiff_size, named_file
from indexer.imagery.numpy_image import Stored, read_sidecar, stored_arrays, unpack
from indexer.imagery.sources import EXTENSIONS, ImageSource

TRUTH: Final = "gt"
"""The labels in an ``.npz`` that holds several arrays of two sides."""

NAMES: Final = "label_names"
"""Class names in an ``.npz``, or in the sidecar of an ``.npy``: those of class 1, 2, ..."""

MAX_CLASS: Final = 100_000
"""Largest class number; beyond it the numbers are measurements."""

Labels = npt.NDArray[np.int32]


def read_labels(path: str | Path, shape: tuple[int, int]) -> tuple[Labels, dict[int, str]]:
    """Read the class of each pixel from a GeoTIFF, an ENVI classification, ``.npy`` or ``.npz``.

    Args:
        path: The file.
        shape: Height and width of the image that the labels belong to.

    Returns:
        Classes, shape ``shape``, 0 where a pixel has no label; and the names of classes as far as
        the file has them.

    Raises:
        NotFoundError: ``file-not-found``.
        ImageryError: ``grids-differ``, if the labels have another shape; ``labels-invalid``, if
            they are no classes; ``header-invalid``, ``size-mismatch``, ``unreadable``.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS:
        stored, names = _of_geotiff(path, shape)
    elif suffix in (".npy", ".npz"):
        stored, names = _of_numpy(path, shape)
    elif suffix == HEADER or is_envi_data(path):
        stored, names = _of_envi(path, shape)
    else:
        named_file(path)
        raise ImageryError(
            f"{path}: not labels of a known format; give a GeoTIFF, an ENVI classification (.hdr), "
            "a .npy or a .npz.",
            kind="unreadable",
        )
    return _classes(path, stored), names


def _of_geotiff(path: Path, shape: tuple[int, int]) -> tuple[npt.NDArray[Any], dict[int, str]]:
    source = ImageSource(path.stem, path, ((None, named_file(path)),))
    with open_alone(source) as file:
        check_geotiff_size(file, path)
        _check_one_layer(path, file.count)
        _check_shape(path, (file.height, file.width), shape)
        stored: npt.NDArray[Any] = file.read(1)
        if file.nodata is not None and math.isfinite(file.nodata):
            stored[stored == file.nodata] = 0
    return stored, {}


def _of_envi(path: Path, shape: tuple[int, int]) -> tuple[npt.NDArray[Any], dict[int, str]]:
    file = read_envi(path)
    _check_one_layer(path, file.bands)
    _check_shape(path, file.shape, shape)
    stored = np.array(file.array().mapped()[0])
    nodata = file.number("data ignore value")
    if nodata is not None:
        stored[stored == nodata] = 0
    names = file.words("class names") or []
    # Class 0 is "Unclassified".
    return stored, {number: name for number, name in enumerate(names) if number and name}


def _of_numpy(path: Path, shape: tuple[int, int]) -> tuple[npt.NDArray[Any], dict[int, str]]:
    arrays = stored_arrays(named_file(path))
    flat = {name: stored for name, stored in arrays.items() if len(stored.shape) == 2}
    chosen = flat.get(TRUTH) or (next(iter(flat.values())) if len(flat) == 1 else None)
    if chosen is None:
        found = ", ".join(f"{name} {stored.shape}".strip() for name, stored in arrays.items())
        raise ImageryError(
            f"{path}: needs one array of rows and columns; it holds {found[:200] or 'none'}. Name "
            f"the labels {TRUTH!r} in the .npz.",
            kind="labels-invalid",
        )
    _check_shape(path, chosen.shape, shape)
    _check_numbers(path, chosen.dtype)
    return unpack(chosen), _names(path, arrays)


def _names(path: Path, arrays: dict[str, Stored]) -> dict[int, str]:
    if NAMES in arrays:
        stored = arrays[NAMES]
        if stored.dtype.kind != "U" or len(stored.shape) != 1:
            raise ImageryError(f"{path}: {NAMES} is no list of texts.", kind="labels-invalid")
        names = [str(name) for name in unpack(stored)]
    elif "" in arrays:
        names = read_sidecar(path).texts(NAMES) or []
    else:
        names = []
    return {number: name for number, name in enumerate(names, start=1) if name}


def _check_numbers(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise ImageryError(
            f"{path}: its labels are of type {dtype}; classes are whole numbers.",
            kind="labels-invalid",
        )


def _classes(path: Path, stored: npt.NDArray[Any]) -> Labels:
    _check_numbers(path, stored.dtype)
    if stored.dtype.kind == "f":
        stored = np.where(np.isnan(stored), 0, stored)
    least, greatest = stored.min(), stored.max()
    if least < 0 or greatest > MAX_CLASS or (stored != np.floor(stored)).any():
        raise ImageryError(
            f"{path}: its labels run from {least} to {greatest}; classes are whole numbers from 1 "
            f"to {MAX_CLASS}, and 0 where there is no label.",
            kind="labels-invalid",
        )
    return stored.astype(np.int32)


def _check_one_layer(path: Path, count: int) -> None:
    if count != 1:
        raise ImageryError(
            f"{path}: it has {count} layers; labels are one layer of class numbers.",
            kind="labels-invalid",
        )


def _check_shape(path: Path, found: tuple[int, ...], shape: tuple[int, int]) -> None:
    if found == shape:
        return
    turned = "; rows and columns seem to be exchanged" if found == shape[::-1] else ""
    raise ImageryError(
        f"{path}: the labels have {found[0]} x {found[1]} pixels, but the image has "
        f"{shape[0]} x {shape[1]}{turned}. Give labels on the image's own grid.",
        kind="grids-differ",
    )
