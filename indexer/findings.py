"""What a run met on its way: what it read, left out, and what is to be known of its inputs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from indexer.errors import ParcelleError
from indexer.imagery.sources import Source
from indexer.skipped import Skipped

_MAX_DOUBTS = 20


@dataclass
class Findings:
    """Collected while a run goes on."""

    read: int = 0
    """Images whose pixels were read."""
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """What is to be known of images, each with their names."""

    def skip(self, source: str, error: ParcelleError) -> None:
        """Note what was left out, and why."""
        self.skipped.append(Skipped.from_error(source, error))

    def doubt(self, note: str | None) -> None:
        """Note what seems wrong but was done as told."""
        if note is None or note in self.notes or len(self.notes) > _MAX_DOUBTS:
            return
        if len(self.notes) == _MAX_DOUBTS:
            note = "More images raise the same doubts; they are not listed."
        self.notes.append(note)

    def remark(self, source: Source, notes: Iterable[str]) -> None:
        """Note what is to be known of an image; what many share is told once."""
        for note in notes:
            self.remarks.setdefault(note, []).append(source.name)

    def add(self, other: "Findings") -> None:
        """Take over what another part of the run met."""
        self.read += other.read
        self.skipped += other.skipped
        for note in other.notes:
            self.doubt(note)
        for note, names in other.remarks.items():
            self.remarks.setdefault(note, []).extend(names)

    @property
    def told(self) -> list[str]:
        """All notes, as sentences."""
        return [
            *self.notes,
            *(
                f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}."
                for note, names in self.remarks.items()
            ),
        ]
