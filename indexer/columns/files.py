"""Arrays in one file that is mapped, and a small JSON that says where each of them lies."""

import json
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.columns.numbers import AnyArray
from indexer.errors import StorageError

_VERSION: Final = 1

# Bytes; a line of a processor's cache.
_ALIGNMENT: Final = 64


def write_arrays(
    folder: Path, name: str, arrays: Iterable[tuple[str, AnyArray]], about: dict[str, Any]
) -> None:
    """Write ``NAME.bin`` and ``NAME.json`` into a folder, and wait until they are on the disk.

    Args:
        folder: It is there, and nobody reads it yet.
        name: Of the files, without their endings.
        arrays: Names and arrays; one at a time is asked for.
        about: What else the JSON says.

    Raises:
        StorageError: ``write-failed``.
    """
    try:
        places = {}
        with (folder / f"{name}.bin").open("wb") as file:
            for key, array in arrays:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                # On every machine in the same order of bytes.
                little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                places[key] = [little.dtype.str, list(little.shape), file.tell()]
                file.write(little.data.cast("B") if little.size else b"")
            size = file.tell()
            _sync(file.fileno(), file.flush)
        content = {"version": _VERSION, "bytes": size, "arrays": places, **about}
        with (folder / f"{name}.json").open("w", encoding="utf-8") as file:
            json.dump(content, file)
            _sync(file.fileno(), file.flush)
    except OSError as error:
        raise StorageError(
            f"{folder / name}: cannot be written ({error.strerror or error}).", kind="write-failed"
        ) from error


def _sync(descriptor: int, flush: Any) -> None:  # noqa: ANN401 - a method of a file
    flush()
    os.fsync(descriptor)


def open_arrays(folder: Path, name: str) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Map the arrays that ``write_arrays`` wrote.

    Returns:
        Arrays that cannot be written, by name, and the content of the JSON.

    Raises:
        StorageError: If they are not there, or not whole (``generation-corrupt``).
    """
    path = folder / f"{name}.bin"
    try:
        about = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        if about["version"] != _VERSION:
            raise ValueError(f"version {about['version']} of its format is unknown")
        size = path.stat().st_size
        if size != about["bytes"]:
            raise ValueError(f"it has {size} bytes, not {about['bytes']}")
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        return {
            key: np.frombuffer(mapped, np.dtype(kind), int(np.prod(shape)), place).reshape(shape)
            if np.prod(shape)
            else np.empty(shape, np.dtype(kind))
            for key, (kind, shape, place) in about["arrays"].items()
        }, about
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path}: cannot be read ({error}); parcelle reindex publishes a new generation.",
            kind="generation-corrupt",
        ) from error
