"""ENVI images: a text header, and a file of nothing but numbers.

The header's keys are those of https://www.nv5geospatialsoftware.com/docs/enviheaderfiles.html.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError

from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.array_file import ArrayFile
from indexer.imagery.hardening import (
    check_bands,
    check_file_size,
    check_place,
    companion_file,
    named_file,
    read_text,
)
from indexer.imagery.rasters import open_written_envi
from indexer.imagery.reader import time_in_tags
from indexer.imagery.sources import ImageSource
from indexer.imagery.spectral_bands import SpectralBand, named_bands, wavelengths_um
from indexer.imagery.spectral_cube import SpectralImage, spectral_image

HEADER: Final = ".hdr"

DATA_SUFFIXES: Final = ("", ".img", ".dat", ".raw", ".bil", ".bsq", ".bip", ".envi")
"""How the file of numbers may be called, beside the header's own stem."""

CLASSIFICATION: Final = "envi classification"
"""``file type`` of a map of classes."""

_TYPES: Final = {
    1: "u1",
    2: "i2",
    3: "i4",
    4: "f4",
    5: "f8",
    12: "u2",
    13: "u4",
    14: "i8",
    15: "u8",
}
_COMPLEX: Final = {6, 9}
# The order of the sides on disk, the slowest first.
_AXES: Final = {"bsq": "byx", "bil": "ybx", "bip": "yxb"}

_PLACE: Final = ("map info", "projection info", "coordinate system string")
_WKT = re.compile(r"\{?\s*[A-Z]{3,}\s*\[")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?|[-+]?(?:nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class EnviFile:
    """An ENVI header, checked, with the file that it describes."""

    header: Path
    data: Path
    fields: Mapping[str, str]
    """By lower-case key; lists keep their braces."""
    lines: int
    samples: int
    bands: int
    dtype: np.dtype[np.generic]
    interleave: str
    offset: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.lines, self.samples

    @property
    def is_classification(self) -> bool:
        """Whether the numbers are classes."""
        return self.fields.get("file type", "").lower() == CLASSIFICATION

    def array(self, **fields: object) -> ArrayFile:
        """The numbers, with fields of ``ArrayFile`` that say how to take them."""
        axes = _AXES[self.interleave]
        sides = {"y": self.lines, "x": self.samples, "b": self.bands}
        stored = tuple(sides[axis] for axis in axes)
        return ArrayFile(self.data, stored, self.dtype, axes, self.offset, **fields)  # type: ignore[arg-type]

    def numbers(self, key: str, *counts: int) -> list[float] | None:
        """A list of numbers; None where the header has no such key.

        Raises:
            ImageryError: ``header-invalid``, if they are no numbers or not as many as one of
                ``counts``, where these are given.
        """
        text = self.fields.get(key)
        if text is None:
            return None
        words = [word for word in re.split(r"[,\s]+", text.strip("{} \t\n")) if word]
        if not all(_NUMBER.fullmatch(word) for word in words):
            raise _invalid(self.header, f"{key} = {text[:60]!r} is no list of numbers")
        if counts and len(words) not in counts:
            raise _invalid(
                self.header, f"{key} has {len(words)} numbers, but the image has {self.bands} bands"
            )
        return [float(re.sub("[dD]", "e", word)) for word in words]

    def number(self, key: str) -> float | None:
        """One number; None where the header has no such key.

        Raises:
            ImageryError: ``header-invalid``, if it is no number.
        """
        numbers = self.numbers(key)
        if numbers is not None and len(numbers) != 1:
            raise _invalid(self.header, f"{key} = {self.fields[key][:60]!r} is no number")
        return None if numbers is None else numbers[0]

    def words(self, key: str) -> list[str] | None:
        """A list of texts; None where the header has no such key."""
        text = self.fields.get(key)
        return None if text is None else [word.strip() for word in text.strip("{} \n").split(",")]


def open_envi(path: Path) -> SpectralImage:
    """Open an ENVI image by its header or by its file of numbers.

    Values are ``(number * gain + offset) / reflectance scale factor`` as far as the header states
    these. Bands that ``bbl`` marks with 0 are left out.

    Args:
        path: The ``.hdr``, or the file that it describes.

    Raises:
        NotFoundError: ``file-not-found``, also for the other of the two files.
        ImageryError: ``header-invalid``, ``size-mismatch``, ``one-band`` or ``unreadable``.
    """
    file = read_envi(path)
    if file.is_classification:
        raise ImageryError(
            f"{path}: is a map of classes, not an image; it can be given as labels.",
            kind="one-band",
        )
    bands, notes = _bands(file)
    transform, crs = place_of_header(file)
    shown = [int(at) - 1 for at in file.numbers("default bands") or [] if np.isfinite(at)]
    bad = [at for at, good in enumerate(file.numbers("bbl", file.bands) or []) if good == 0]
    tags = {"datetime": file.fields.get("acquisition time", "").strip("{} ")}
    source = ImageSource(file.data.stem, path, ((None, file.data),))
    return spectral_image(
        source,
        _pixels(file),
        file.shape,
        bands,
        left_out=bad,
        # One band to be shown in gray is no use here.
        default_bands=shown if len(shown) > 1 else None,
        transform=transform,
        crs=crs,
        acquired_at=time_in_tags(tags) or source.acquired_at,
        notes=notes,
    )


def is_envi_data(path: Path) -> bool:
    """Whether a header lies beside a file, so that it can be the numbers of an ENVI image."""
    return bool(_headers_of(path))


def _pixels(file: EnviFile) -> ArrayFile:
    gains = file.numbers("data gain values", file.bands)
    offsets = file.numbers("data offset values", file.bands)
    factor = file.number("reflectance scale factor")
    factor = 1.0 if factor is None else factor
    if not factor > 0:
        raise _invalid(file.header, f"reflectance scale factor = {factor:g} is not above 0")
    scale = None if gains is None and factor == 1 else np.array(gains or [1.0] * file.bands)
    shift = None if offsets is None else np.array(offsets) / factor
    return file.array(
        nodata=file.number("data ignore value"),
        scale=None if scale is None else scale / factor,
        shift=shift,
    )


def _bands(file: EnviFile) -> tuple[tuple[SpectralBand, ...], list[str]]:
    units = file.fields.get("wavelength units", "").strip("{} ")
    numbers = file.numbers("wavelength", file.bands)
    wavelengths, note, share = wavelengths_um(numbers or [], units)
    widths = file.numbers("fwhm", file.bands)
    fwhm = [width * share if width > 0 else None for width in widths or []]
    names = file.words("band names")
    notes = [note] if note else []
    if names is not None and len(names) != file.bands:
        # A name may hold a comma, so that they cannot be counted; they decide nothing.
        notes.append(f"{len(names)} band names for {file.bands} bands are passed over")
        names = None
    return named_bands(file.bands, names, wavelengths or None, fwhm or None), notes


# Header -----------------------------------------------------------------------------------------


def read_envi(path: Path) -> EnviFile:
    """Find header and data of an ENVI image and hold them against each other.

    Raises:
        NotFoundError: ``file-not-found``.
        ImageryError: ``header-invalid``, ``size-mismatch`` or ``unreadable``.
    """
    named_file(path)
    if path.suffix.lower() == HEADER:
        header, fields = path, parse_header(path)
        data = companion_file(_data_of(path, _stated_bytes(path, fields)), path)
    else:
        header, data = _header_of(path), named_file(path)
        fields = parse_header(companion_file(header, path))
    file = _checked(header, data, fields)
    check_bands(header, file.bands)
    check_file_size(data, (file.lines, file.samples, file.bands), file.dtype, file.offset)
    return file


def parse_header(path: Path) -> dict[str, str]:
    """The keys of an ENVI header, in lower case, and their texts; lists keep their braces.

    Raises:
        ImageryError: ``header-invalid``, if it is none, or a list does not end.
    """
    lines = read_text(path).splitlines()
    if not lines or lines[0].strip() != "ENVI":
        raise _invalid(path, "its first line is not ENVI", "Name the header of an ENVI image")
    fields: dict[str, str] = {}
    rest = iter(lines[1:])
    for line in rest:
        key, equals, text = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        parts = [text.strip()]
        while parts[0].startswith("{") and "}" not in parts[-1]:
            more = next(rest, None)
            if more is None:
                raise _invalid(path, f"the list of {key.strip()[:60]!r} has no closing brace")
            parts.append(more.strip())
        fields[" ".join(key.lower().split())] = "\n".join(parts)
    return fields


def _checked(header: Path, data: Path, fields: Mapping[str, str]) -> EnviFile:
    needed = ("samples", "lines", "bands", "data type", "interleave")
    missing = [key for key in needed if key not in fields]
    if missing:
        raise _invalid(header, f"{', '.join(missing)} is missing")
    code = _whole(header, fields, "data type")
    if code in _COMPLEX:
        raise _invalid(header, f"data type {code} is complex", "Only real numbers are spectra")
    if code not in _TYPES:
        known = ", ".join(map(str, _TYPES))
        raise _invalid(header, f"data type {code} is none of {known}")
    interleave = fields["interleave"].lower()
    if interleave not in _AXES:
        raise _invalid(header, f"interleave = {fields['interleave']!r} is none of bsq, bil, bip")
    if _whole(header, fields, "file compression", 0):
        raise _invalid(header, "its data is compressed", "Write it uncompressed")
    dtype = np.dtype(_TYPES[code])
    if dtype.itemsize > 1 and "byte order" not in fields:
        raise _invalid(header, "byte order is missing (0: least significant byte first)")
    order = _whole(header, fields, "byte order", 0)
    if order not in (0, 1):
        raise _invalid(header, f"byte order = {order} is neither 0 nor 1")
    counts = {key: _whole(header, fields, key) for key in ("lines", "samples", "bands")}
    zero = [key for key, count in counts.items() if count < 1]
    if zero:
        raise _invalid(header, f"{', '.join(zero)} is not above 0")
    return EnviFile(
        header,
        data,
        fields,
        **counts,
        dtype=dtype.newbyteorder("<" if order == 0 else ">"),
        interleave=interleave,
        offset=_whole(header, fields, "header offset", 0),
    )


def _stated_bytes(header: Path, fields: Mapping[str, str]) -> int:
    file = _checked(header, header, fields)
    return file.offset + file.lines * file.samples * file.bands * file.dtype.itemsize


def _whole(header: Path, fields: Mapping[str, str], key: str, default: int | None = None) -> int:
    text = fields.get(key)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\d{1,18}", text.strip("{} ")):
        raise _invalid(header, f"{key} = {(text or '')[:60]!r} is no whole number")
    return int(text.strip("{} "))


def _invalid(header: Path, found: str, advice: str = "Correct the header") -> ImageryError:
    return ImageryError(f"{header}: {found}. {advice}.", kind="header-invalid")


def _header_of(data: Path) -> Path:
    found = _headers_of(data)
    if not found:
        raise NotFoundError(
            f"{data}: neither {data.stem}{HEADER} nor {data.name}{HEADER} lies beside it; an ENVI "
            "image needs its header.",
            kind="file-not-found",
        )
    return found[0]


def _headers_of(data: Path) -> list[Path]:
    """The headers beside a file; one with its whole name belongs to it alone, so it is first."""
    stems = dict.fromkeys((data.name, data.stem))
    named = [data.with_name(stem + ending) for stem in stems for ending in (HEADER, ".HDR")]
    return [path for path in named if path.exists()]


def _data_of(header: Path, stated_bytes: int) -> Path:
    """The one file beside a header that bears its stem and can hold its numbers."""
    stem = header.stem
    found = [
        entry
        for entry in sorted(header.parent.iterdir())
        if entry.name == stem
        or (entry.stem == stem and entry.suffix.lower() in DATA_SUFFIXES and entry.is_file())
    ]
    if not found:
        raise NotFoundError(
            f"{header}: no data beside it; looked for {stem} and {stem} with "
            f"{', '.join(filter(None, DATA_SUFFIXES))}. Name the data file.",
            kind="file-not-found",
        )
    fitting = [entry for entry in found if entry.stat().st_size == stated_bytes]
    if len(found) > 1 and len(fitting) != 1:
        names = ", ".join(entry.name for entry in found)
        raise _invalid(header, f"several files may be its data ({names})", "Name the one meant")
    return (fitting or found)[0]


# Place ------------------------------------------------------------------------------------------


def place_of_header(file: EnviFile) -> tuple[Affine, CRS | None]:
    """Where the image lies, as GDAL's ENVI driver understands the header.

    GDAL is shown a copy of two pixels, so that it can look at nothing beside the image.

    Returns:
        Pixel to map coordinates and the reference system; the identity and None where the header
        tells none.
    """
    fields = {key: " ".join(file.fields[key].split()) for key in _PLACE if key in file.fields}
    if not _WKT.match(fields.get("coordinate system string", "")):
        # GDAL would take an address or the name of a file, too.
        fields.pop("coordinate system string", None)
    if not fields.get("map info", "").strip("{} "):
        return Affine.identity(), None
    lines = ["ENVI", "samples = 2", "lines = 1", "bands = 1", "data type = 1", "interleave = bsq"]
    lines += [f"{key} = {text}" for key, text in fields.items()]
    with tempfile.TemporaryDirectory(prefix="parcelle-") as folder:
        data = Path(folder) / "place.img"
        data.write_bytes(bytes(2))
        data.with_suffix(HEADER).write_text("\n".join(lines), encoding="utf-8")
        try:
            with open_written_envi(data) as opened:
                crs = opened.crs
                # "Arbitrary" and "Pixel" become a system of their own, which lies nowhere.
                on_earth = crs is not None and (crs.is_projected or crs.is_geographic)
                check_place(opened.transform, file.shape, file.header)
                return opened.transform, crs if on_earth else None
        except (RasterioError, CRSError) as error:
            raise _invalid(
                file.header, f"map info = {fields['map info'][:60]!r} cannot be read"
            ) from error
