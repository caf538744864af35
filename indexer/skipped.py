"""What a batch left out, named so that nobody has to guess: an image, a parcel, a whole file."""

from dataclasses import asdict, dataclass

from indexer.errors import ParcelleError


@dataclass(frozen=True)
class Skipped:
    """One input that was left out while the batch went on."""

    source: str
    """Path of the file; for one parcel of a file, the path and the parcel."""
    kind: str
    """Stable word for the reason, one of the kinds in ``indexer.errors``."""
    reason: str
    """One or two sentences: the thing, what was found, what to do."""

    @classmethod
    def from_error(cls, source: str, error: ParcelleError) -> "Skipped":
        """Keep an error's kind and message as the reason."""
        return cls(source, error.kind, error.message)

    def to_dict(self) -> dict[str, str]:
        """The JSON form, keys ``source``, ``kind`` and ``reason``."""
        return asdict(self)
