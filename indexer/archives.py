"""Zip files from strangers: how many files they list, where these lead, how large they become."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

MAX_DIRECTORY_BYTES: Final = 32 << 20
"""Largest list of files; each takes 46 bytes and its name (APPNOTE.TXT 6.3.10, 4.3.12)."""

# What zipfile raises at damaged, encrypted or unknown content, and what zlib and bz2 do.
ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    LookupError,
    zlib.error,
)
"""What reading a damaged zip file raises."""


class TooLargeError(ValueError):
    """A zip file holds, or would unpack to, more than is read; the message says what."""


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose list of files is not beyond measure.

    Python reads the whole list at once and makes objects of it that are ten times as large.

    Raises:
        TooLargeError: If its list of files is longer than ``MAX_DIRECTORY_BYTES``.
        zipfile.BadZipFile: If it is none; see ``ZIP_ERRORS`` for what reading it may raise.
    """
    with _Guarded(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def leads_out(name: str) -> bool:
    """Whether a name in a zip file is that of a file elsewhere, or of none."""
    return (
        ".." in PurePosixPath(name).parts
        or name.startswith("/")
        or "\\" in name
        or "\x00" in name
        or not name
    )


def is_bomb(entry: zipfile.ZipInfo, most_ratio: int, small_bytes: int) -> bool:
    """Whether a file would unpack to far more than it takes in the archive.

    Args:
        entry: Of the archive's list.
        most_ratio: Largest ratio of the two that such content has.
        small_bytes: What unpacks to less is let pass.
    """
    return entry.file_size > max(entry.compress_size * most_ratio, small_bytes)


class _Guarded(io.FileIO):
    """A file of which no more than a directory is read at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise TooLargeError(f"its list of files takes {size} bytes")
        return super().read(size) or b""
