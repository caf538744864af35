"""NumPy arrays as images: ``.npy`` through a memory map, ``.npz`` unpacked, each with a sidecar."""

import json
import lzma
import math
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from indexer.archives import opened_zip
from indexer.errors import ImageryError
from indexer.imagery.array_file import ArrayFile, ArrayInMemory
from indexer.imagery.hardening import (
    check_bands,
    check_file_size,
    companion_file,
    named_file,
    read_text,
)
from indexer.imagery.reader import time_in_tags
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_bands import named_bands, wavelengths_um
from indexer.imagery.spectral_cube import PixelReader, SpectralImage, spectral_image

MAX_UNPACKED_BYTES: Final = 4 << 30
"""Largest array in an ``.npz``: it cannot be read by parts."""

MAX_ARRAYS: Final = 1000
"""Most arrays of an ``.npz``: the header of each is read."""

MAX_TEXT_ARRAY_BYTES: Final = 16 << 20
"""Largest array of texts, such as the names of classes."""

CUBE: Final = "cube"
"""The array of an ``.npz`` that is the image where several could be."""

KEYS: Final = frozenset(
    {
        "wavelengths",
        "wavelength_units",
        "fwhm",
        "axes",
        "nodata",
        "crs",
        "transform",
        "default_bands",
        "datetime",
        "band_names",
        "scale",
        "bad_bands",
        "label_names",
    }
)
"""What a sidecar may say."""

_AXES: Final = ("yxb", "byx")
# What NumPy and the archive's decompressors raise on damaged files; headers are Python literals.
_DAMAGED: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# GDAL would take an address or the name of a file for a reference system, too.
_CRS = re.compile(r"(?:EPSG|ESRI|OGC|IGNF):\w{1,32}|[A-Z]{3,}\s*\[.*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Stored:
    """What is known of an array before it is read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0
    order: Literal["C", "F"] = "C"
    member: str | None = None
    """Its name in an ``.npz``."""

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Sidecar:
    """The JSON object beside an array, checked as it is asked."""

    path: Path
    content: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self, key: str, *counts: int) -> list[float] | None:
        """A list of numbers; None where it is not there.

        Raises:
            ImageryError: ``header-invalid``, if it is no such list or not as long as one of
                ``counts``.
        """
        values = self._list(key, (int, float), "numbers", counts)
        return None if values is None else [self._float(key, value) for value in values]

    def positions(self, key: str, *counts: int) -> list[int] | None:
        """A list of whole numbers, likewise."""
        return self._list(key, (int,), "whole numbers", counts)

    def texts(self, key: str, *counts: int) -> list[str] | None:
        """A list of texts, likewise."""
        return self._list(key, (str,), "texts", counts)

    def number(self, key: str) -> float | None:
        """One number, likewise."""
        value = self.content.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.invalid(f"{key} = {value!r:.60} is no number")
        return self._float(key, value)

    def text(self, key: str) -> str | None:
        """One text, likewise."""
        value = self.content.get(key)
        if value is not None and not isinstance(value, str):
            raise self.invalid(f"{key} = {value!r:.60} is no text")
        return value

    def invalid(self, found: str) -> ImageryError:
        """The error that names the sidecar."""
        return ImageryError(f"{self.path}: {found}. Correct the sidecar.", kind="header-invalid")

    def _float(self, key: str, value: float) -> float:
        try:
            return float(value)
        except OverflowError:
            raise self.invalid(f"{key} holds a number beyond all measure") from None

    def _list(
        self, key: str, types: tuple[type, ...], what: str, counts: tuple[int, ...]
    ) -> list[Any] | None:
        values = self.content.get(key)
        if values is None:
            return None
        if not isinstance(values, list) or not all(
            isinstance(value, types) and not isinstance(value, bool) for value in values
        ):
            raise self.invalid(f"{key} is no list of {what}")
        if counts and len(values) not in counts:
            wanted = " or ".join(map(str, counts))
            raise self.invalid(f"{key} has {len(values)} {what}, but there must be {wanted}")
        return values


def open_numpy(path: Path) -> SpectralImage:
    """Open a ``.npy`` or ``.npz`` by its header and its sidecar, ``NAME.json``.

    Raises:
        NotFoundError: ``file-not-found``.
        ImageryError: ``unreadable``, ``size-mismatch``, ``header-invalid``, ``too-large`` or
            ``one-band``.
    """
    real = named_file(path)
    sidecar = read_sidecar(path)
    stored = _the_cube(real, path)
    axes = sidecar.text("axes") or "yxb"
    if axes not in _AXES:
        raise sidecar.invalid(f"axes = {axes!r} is neither yxb (rows, columns, bands) nor byx")
    sides = {axis: stored.shape[axes.index(axis)] for axis in axes}
    count = sides["b"]
    check_bands(path, count)
    units = sidecar.text("wavelength_units")
    wavelengths, note, share = wavelengths_um(sidecar.numbers("wavelengths", count) or [], units)
    fwhm = [width * share for width in sidecar.numbers("fwhm", count) or []]
    bands = named_bands(
        count, sidecar.texts("band_names", count), wavelengths or None, fwhm or None
    )
    unknown = sorted(set(sidecar.content) - KEYS)
    notes = [note] if note else []
    if unknown:
        notes.append(f"{sidecar.path.name} says {', '.join(unknown)[:80]}, which is passed over")
    shown = sidecar.positions("default_bands", 3)
    source = ImageSource(path.stem, path, ((None, path),))
    place = _place(sidecar)
    return spectral_image(
        source,
        _pixels(stored, axes, sidecar, count),
        (sides["y"], sides["x"]),
        bands,
        left_out=_bad_bands(sidecar, count),
        default_bands=shown,
        transform=place[0],
        crs=place[1],
        acquired_at=time_in_tags({"datetime": sidecar.text("datetime") or ""})
        or source.acquired_at,
        notes=notes,
    )


def read_sidecar(path: Path) -> Sidecar:
    """What the JSON beside an array says; nothing where there is none.

    Raises:
        ImageryError: ``header-invalid``, if it is no JSON object.
    """
    beside = path.with_suffix(".json")
    if not beside.exists():
        return Sidecar(beside)
    companion_file(beside, path)
    try:
        content = json.loads(read_text(beside))
    except (ValueError, RecursionError) as error:
        raise Sidecar(beside).invalid(f"is no JSON ({error!s:.100})") from error
    if not isinstance(content, dict):
        raise Sidecar(beside).invalid("is no JSON object")
    return Sidecar(beside, content)


def _bad_bands(sidecar: Sidecar, count: int) -> list[int]:
    bad = sidecar.positions("bad_bands") or []
    if not all(0 <= at < count for at in bad):
        raise sidecar.invalid(f"bad_bands names bands that are not there (0 to {count - 1} are)")
    return bad


def _place(sidecar: Sidecar) -> tuple[Affine, CRS | None]:
    numbers = sidecar.numbers("transform", 6)
    transform = Affine.identity() if numbers is None else Affine(*numbers)
    if not np.isfinite(transform.determinant) or transform.is_degenerate:
        raise sidecar.invalid(f"transform = {numbers} puts all pixels in one place")
    text = sidecar.text("crs")
    if text is None:
        return transform, None
    try:
        if not _CRS.fullmatch(text.strip()):
            raise CRSError("neither an authority's code nor WKT")
        crs = CRS.from_string(text.strip())
    except (CRSError, ValueError) as error:
        raise sidecar.invalid(f"crs = {text!r:.60} is not known ({error!s:.100})") from error
    if numbers is None:
        raise sidecar.invalid("it has a crs but no transform, so no place")
    return transform, crs


def _pixels(stored: Stored, axes: str, sidecar: Sidecar, count: int) -> PixelReader:
    nodata, factor = sidecar.number("nodata"), sidecar.number("scale")
    scale = None if factor is None else np.full(count, factor)
    if stored.member is None:
        return ArrayFile(
            stored.path,
            stored.shape,
            stored.dtype,
            axes,
            stored.offset,
            stored.order,
            nodata=nodata,
            scale=scale,
        )
    cube = unpack(stored).transpose([axes.index(axis) for axis in "byx"])
    return ArrayInMemory(cube, nodata=nodata, scale=scale)


# Files ------------------------------------------------------------------------------------------


def stored_arrays(path: Path) -> dict[str, Stored]:
    """The arrays in a NumPy file by name, nothing of them read; a ``.npy`` has one, without name.

    Raises:
        ImageryError: ``unreadable``, if it is none, or is pickled, or holds no numbers;
            ``size-mismatch``, if it is shorter or longer than it states; ``too-large``.
    """
    try:
        if path.suffix.lower() == ".npz":
            with opened_zip(path) as packed:
                arrays = [info for info in packed.infolist() if info.filename.endswith(".npy")]
                if len(arrays) > MAX_ARRAYS:
                    raise ImageryError(
                        f"{path}: holds {len(arrays)} arrays; at most {MAX_ARRAYS} are looked at. "
                        "Save the image by itself.",
                        kind="too-large",
                    )
                return {
                    info.filename.removesuffix(".npy"): _in_archive(path, packed, info)
                    for info in arrays
                }
        with path.open("rb") as file:
            stored = _stored(path, file)
    except _DAMAGED as error:
        raise ImageryError(
            f"{path}: cannot be read as NumPy array ({error!s:.200}); the file may be truncated or "
            "of another format.",
            kind="unreadable",
        ) from error
    if stored.dtype.kind in "biuf":
        check_file_size(path, stored.shape, stored.dtype, stored.offset)
    return {"": stored}


def unpack(stored: Stored) -> npt.NDArray[Any]:
    """Read an array of numbers or texts as a whole.

    Raises:
        ImageryError: ``unreadable``; ``too-large``.
    """
    if stored.dtype.kind not in "biufU":
        raise ImageryError(
            f"{stored.path}: its array {stored.member or ''} is of type {stored.dtype}; numbers "
            "are read.",
            kind="unreadable",
        )
    most = MAX_TEXT_ARRAY_BYTES if stored.dtype.kind == "U" else MAX_UNPACKED_BYTES
    if stored.bytes > most:
        raise ImageryError(
            f"{stored.path}: its array {stored.member or ''} of {stored.bytes >> 20} MiB can only "
            f"be read as a whole; at most {most >> 20} MiB are.",
            kind="too-large",
        )
    try:
        if stored.member is None:
            return np.load(stored.path, allow_pickle=False)  # type: ignore[no-any-return]
        with np.load(stored.path, allow_pickle=False) as packed:
            return packed[stored.member]  # type: ignore[no-any-return]
    except _DAMAGED as error:
        raise ImageryError(
            f"{stored.path}: its array {stored.member or ''} cannot be read ({error!s:.200}); the "
            "file may be truncated. Fetch it again.",
            kind="unreadable",
        ) from error


def _in_archive(path: Path, packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Stored:
    with packed.open(info) as file:
        stored = _stored(path, file)
    if stored.dtype.kind in "biufU":
        stated = math.prod(stored.shape) * stored.dtype.itemsize + stored.offset
        if stated != info.file_size:
            raise ImageryError(
                f"{path}: the header of {info.filename} states {stated} bytes, but the archive "
                f"holds {info.file_size}; fetch it again.",
                kind="size-mismatch",
            )
    return Stored(
        path,
        stored.shape,
        stored.dtype,
        member=info.filename.removesuffix(".npy"),
        order=stored.order,
    )


def _stored(path: Path, file: IO[bytes]) -> Stored:
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # That the header was written by Python 2 is nobody's business.
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return Stored(path, shape, dtype, file.tell(), "F" if fortran else "C")


def _the_cube(real: Path, path: Path) -> Stored:
    """The array that is the image: ``cube``, or the only one of three sides.

    Raises:
        ImageryError: ``unreadable``, if there is none or several; ``too-large``.
    """
    arrays = stored_arrays(real)
    cubes = {name: stored for name, stored in arrays.items() if len(stored.shape) == 3}
    chosen = arrays.get(CUBE) or (next(iter(cubes.values())) if len(cubes) == 1 else None)
    if chosen is None or len(chosen.shape) != 3:
        found = ", ".join(
            f"{name} {stored.shape}".strip() for name, stored in list(arrays.items())[:6]
        )
        raise ImageryError(
            f"{path}: needs one array of rows, columns and bands; it holds {found or 'none'}. "
            f"Write a .npy of three sides, or name it {CUBE!r} in the .npz.",
            kind="unreadable",
        )
    if chosen.dtype.kind not in "iuf":
        raise ImageryError(
            f"{path}: its numbers are of type {chosen.dtype}; spectra are integers or floats.",
            kind="unreadable",
        )
    if 0 in chosen.shape:
        raise ImageryError(f"{path}: its array {chosen.shape} is empty.", kind="unreadable")
    if chosen.member is not None and chosen.bytes > MAX_UNPACKED_BYTES:
        raise ImageryError(
            f"{path}: its array of {chosen.bytes >> 20} MiB can only be unpacked as a whole; "
            f"at most {MAX_UNPACKED_BYTES >> 20} MiB are. Save it as .npy, which is read by parts.",
            kind="too-large",
        )
    return chosen
