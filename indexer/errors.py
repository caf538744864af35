"""What can go wrong, grouped by what the caller can do about it.

::

    ParcelleError
    ├── NotFoundError            ask for something that exists (also a KeyError)
    ├── InvalidInputError        correct the request (also a ValueError)
    ├── ImageryError             this image cannot be used; go on with the others
    ├── ParcelsError             this parcel, or parcels file, cannot be used
    ├── WeightsError             obtain or name the right weight file
    ├── GenerationMismatchError  the question belongs to another embedding space
    ├── ConflictError            somebody else is writing; try again later
    └── StorageError             the database or the index files need an operator

Every error carries a ``kind``: a short stable word that programs may rely on. Kinds are only
ever added. The message names the thing, what was found, and what to do.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from indexer.plain_text import plain

MAX_CHARACTERS: Final = 2_000
"""Of a message; names that strangers give to files, columns and parameters have no end."""


class ParcelleError(Exception):
    """Base of all errors that Parcelle raises on purpose.

    Args:
        message: One or two sentences: the thing, what was found, what to do. What names in it
            would do to a terminal or a log is undone, and what is longer than anybody reads is
            cut off.
        kind: One of the class's ``KINDS``.
    """

    KINDS: ClassVar[frozenset[str]] = frozenset()

    TOLD: ClassVar[dict[str, str]] = {}
    """What strangers are told in place of the message, by kind; of kinds that are not named here,
    they are told what stands under an empty kind, or else the message."""

    def __init__(self, message: str, *, kind: str) -> None:
        if kind not in self.KINDS:
            raise TypeError(f"{type(self).__name__} has no kind {kind!r}")
        self.message = _fit_to_print(message)
        super().__init__(self.message)
        self.kind = kind

    @property
    def told(self) -> str:
        """What anybody may read: the message, unless it names files, folders or addresses."""
        return self.TOLD.get(self.kind) or self.TOLD.get("") or self.message

    def __str__(self) -> str:
        # KeyError would print the repr of its argument.
        return self.message

    def __reduce__(self) -> tuple[Callable[[], "ParcelleError"], tuple[()]]:
        # Pickle and copy would leave the kind out, which is no positional argument.
        return partial(type(self), self.message, kind=self.kind), ()


class NotFoundError(ParcelleError, KeyError):
    """The thing that was asked for does not exist."""

    KINDS = frozenset(
        {
            "cluster-not-found",
            "collection-not-found",
            "file-not-found",
            "generation-not-found",
            "parcel-not-found",
            "parcel-not-embedded",
            "preview-not-found",
            "state-not-found",
        }
    )


class InvalidInputError(ParcelleError, ValueError):
    """The request itself is wrong; correct it and ask again."""

    KINDS = frozenset(
        {
            "ambiguous-parcel",
            "cursor-expired",
            "folder-not-empty",
            "index-exists",
            "invalid-bands",
            "invalid-baseline",
            "invalid-bbox",
            "invalid-collection",
            "invalid-cursor",
            "invalid-datetime",
            "invalid-dimensions",
            "invalid-examples",
            "invalid-filter",
            "invalid-k",
            "invalid-name",
            "invalid-option",
            "invalid-recall",
            "invalid-vector",
            "no-backup",
            "no-imagery",
            "unknown-encoder",
            "unknown-property",
            "unsafe-host",
        }
    )


class ImageryError(ParcelleError):
    """One image cannot be read or used. A batch skips it and goes on."""

    KINDS = frozenset(
        {
            "band-count",
            "bands-unknown",
            "catalog-invalid",
            "catalog-limit",
            "catalog-loop",
            "duplicate-id",
            "grids-differ",
            "header-invalid",
            "href-refused",
            "item-invalid",
            "labels-invalid",
            "missing-band",
            "no-contrast",
            "no-crs",
            "no-product",
            "no-radar",
            "no-valid-pixels",
            "no-wavelengths",
            "not-calibrated",
            "one-band",
            "outside-folder",
            "several-granules",
            "size-mismatch",
            "too-few-pixels",
            "too-large",
            "unreachable",
            "unreadable",
            "unsafe-path",
            "upload-undecodable",
        }
    )


class ParcelsError(ParcelleError):
    """A parcel, or a whole parcels file, cannot be used."""

    KINDS = frozenset(
        {
            "columns-missing",
            "crs-missing",
            "duplicate-id",
            "geometry-empty",
            "geometry-invalid",
            "geometry-type",
            "id-invalid",
            "id-missing",
            "outside-imagery",
            "too-large",
            "unreadable",
        }
    )


class WeightsError(ParcelleError):
    """The encoder's weights are missing, damaged, or belong to another network."""

    KINDS = frozenset({"weights-corrupt", "weights-mismatch", "weights-not-found"})
    TOLD: ClassVar[dict[str, str]] = {
        "": "The encoder's weights cannot be used; Parcelle's log says why."
    }


class GenerationMismatchError(ParcelleError):
    """Vectors of two embedding spaces were about to meet."""

    KINDS = frozenset({"space-mismatch"})


class ConflictError(ParcelleError):
    """Another process holds what this one needs."""

    KINDS = frozenset({"lock-lost", "reindex-running"})
    TOLD: ClassVar[dict[str, str]] = {
        "": "Another command writes to the index; try again when it is done."
    }


class StorageError(ParcelleError):
    """The database or a generation's files cannot be used as they are."""

    KINDS = frozenset(
        {
            "backend-differs",
            "backup-corrupt",
            "backup-newer",
            "changes-forgotten",
            "database-corrupt",
            "database-unreachable",
            "database-empty",
            "disk-full",
            "generation-corrupt",
            "milvus-unreachable",
            "schema-newer",
            "schema-outdated",
            "write-failed",
        }
    )
    TOLD: ClassVar[dict[str, str]] = {
        "database-empty": "There is no index yet; parcelle reindex makes one.",
        "database-unreachable": "The database of the index does not answer.",
        "milvus-unreachable": "The server that searches the vectors does not answer.",
        "": "The index cannot be used as it is; Parcelle's log says why.",
    }


def _fit_to_print(message: str) -> str:
    """A message on one line, without what terminals and logs obey."""
    # Twice: to write characters as their numbers makes a text longer.
    return _cut(plain(_cut(message)))


def _cut(message: str) -> str:
    """A message of bounded length; what to do stands at its end."""
    if len(message) <= MAX_CHARACTERS:
        return message
    half = MAX_CHARACTERS // 2
    return f"{message[: half - 1]}…{message[-half:]}"
