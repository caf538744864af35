"""The program of the process that decodes uploads: bytes on stdin, pixels on stdout.

Started by ``indexer.imagery.decoding`` and by nobody else. Messages either way are a JSON object
and bytes, their sizes before them.
"""

import json
import os
import struct
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

from indexer.errors import ParcelleError
from indexer.imagery.chip import Chip
from indexer.imagery.confinement import confine, limit_cpu
from indexer.imagery.reader import ReadingOptions
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.uploads import read_upload

SIZES: Final = struct.Struct(">IQ")
"""Before each message: bytes of its JSON object, bytes that follow it."""

_MAX_MESSAGE: Final = 2_000


def main() -> None:
    """Decode one image after the other until stdin ends."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    # What a library prints is no answer.
    os.dup2(2, 1)
    setup = json.loads(sys.argv[1])
    confined = confine(
        memory_bytes=setup["memory_bytes"],
        file_bytes=setup["file_bytes"],
        readable=_libraries(),
        writable=Path.cwd(),
    )
    _write(outgoing, {"ready": asdict(confined)})
    while sizes := incoming.read(SIZES.size):
        head_bytes, content_bytes = SIZES.unpack(sizes)
        asked = json.loads(incoming.read(head_bytes))
        content = incoming.read(content_bytes)
        limit_cpu(setup["timeout_s"])
        _write(outgoing, *_decoded(content, asked))


def _libraries() -> list[Path]:
    """Folders that Python, GDAL and PROJ may still read; none that an operator keeps data in."""
    package = Path(__file__).resolve().parents[1]
    installed = (Path(entry).resolve() for entry in sys.path if entry)
    others = [folder for folder in installed if folder != package.parent]
    system = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64"]
    return [package, *others, *map(Path, system)]


def _decoded(content: bytes, asked: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        return _told(read_upload(content, asked["name"], *_reading(asked)))
    except ParcelleError as error:
        told = error.message[:_MAX_MESSAGE]
        return {"error": {"kind": error.kind, "message": told}}, b""
    except MemoryError:
        return {"error": {"kind": "too-large", "message": None}}, b""
    except Exception as error:
        traceback.print_exc()
        return {"unexpected": type(error).__name__}, b""


def _reading(asked: Mapping[str, Any]) -> tuple[ReadingOptions, tuple[SpectralBand, ...] | None]:
    bands = asked["bands"]
    options = ReadingOptions(
        bands=None if bands is None else tuple(bands),
        baseline=asked["baseline"],
        wanted=tuple(asked["wanted"]),
    )
    spectral = asked["spectral"]
    if spectral is None:
        return options, None
    return options, tuple(SpectralBand(**band) for band in spectral)


def _told(chip: Chip) -> tuple[dict[str, Any], bytes]:
    acquired_at = chip.acquired_at
    head = {
        "bands": chip.bands,
        "shape": chip.shape,
        "transform": tuple(chip.transform)[:6],
        "scene": chip.scene,
        "acquired_at": None if acquired_at is None else acquired_at.isoformat(),
        "processing_baseline": chip.processing_baseline,
        "scl": chip.scl is not None,
        "stated_offset": chip.stated_offset,
        "layer_bands": chip.layer_bands,
    }
    parts = [
        chip.reflectance.astype("<f4", copy=False).tobytes(),
        chip.valid_mask.tobytes(),
        b"" if chip.scl is None else chip.scl.tobytes(),
    ]
    return head, b"".join(parts)


def _write(outgoing: BinaryIO, head: Mapping[str, Any], content: bytes = b"") -> None:
    encoded = json.dumps(head).encode()
    outgoing.write(SIZES.pack(len(encoded), len(content)) + encoded)
    outgoing.write(content)
    outgoing.flush()


if __name__ == "__main__":
    main()
