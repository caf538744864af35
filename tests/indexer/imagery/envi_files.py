"""Writes ENVI images by their definition: a text header and nothing but numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# https://www.nv5geospatialsoftware.com/docs/enviheaderfiles.html
TYPE_CODES = {
    "uint8": 1,
    "int16": 2,
    "int32": 3,
    "float32": 4,
    "float64": 5,
    "uint16": 12,
    "uint32": 13,
    "int64": 14,
    "uint64": 15,
}
# From (band, y, x) to the order on disk.
ORDERS = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def write_envi(
    header: Path,
    cube: npt.NDArray[Any],
    interleave: str = "bsq",
    byte_order: int = 0,
    offset: int = 0,
    data: Path | None = None,
    fields: Mapping[str, str | None] | None = None,
) -> Path:
    """Write header and data of ``cube``, shape ``(band, y, x)``.

    Args:
        header: The ``.hdr``.
        cube: The numbers.
        interleave: ``bsq``, ``bil`` or ``bip``.
        byte_order: 0 for the least significant byte first, 1 for the most.
        offset: Bytes before the first number.
        data: File of the numbers; by default the header's stem with ``.img``.
        fields: Further keys of the header; None leaves a key out.

    Returns:
        The header.
    """
    count, height, width = cube.shape
    stored = cube.transpose(ORDERS[interleave]).astype(
        cube.dtype.newbyteorder(">" if byte_order else "<")
    )
    numbers = np.ascontiguousarray(stored).tobytes()
    (data or header.with_suffix(".img")).write_bytes(b"\xff" * offset + numbers)
    all_fields: dict[str, str | None] = {
        "samples": str(width),
        "lines": str(height),
        "bands": str(count),
        "header offset": str(offset),
        "file type": "ENVI Standard",
        "data type": str(TYPE_CODES[cube.dtype.name]),
        "interleave": interleave,
        "byte order": str(byte_order),
    }
    all_fields |= dict(fields or {})
    lines = [f"{key} = {text}" for key, text in all_fields.items() if text is not None]
    header.write_text("\n".join(["ENVI", *lines]) + "\n")
    return header
