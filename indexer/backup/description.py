"""What a backup consists of, as its ``backup.json`` says.

::

    DIR/backup.json                  written last: what is there, with the digest of every file
    DIR/catalog.db                   all tables, as a SQLite file, whatever database they are from
    DIR/generations/<number>/...     the published indexes
    DIR/weights/...                  weight files of encoders of one's own
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from indexer.errors import InvalidInputError, StorageError

DESCRIPTION_FILE: Final = "backup.json"
CATALOG_FILE: Final = "catalog.db"
GENERATIONS: Final = "generations"
WEIGHTS: Final = "weights"

FORMAT: Final = 1


@dataclass(frozen=True)
class Description:
    """Everything that is known of a backup without opening its files."""

    revision: str
    """Of the schema that the catalog has."""
    created_at: str
    """ISO 8601, UTC."""
    versions: dict[str, str]
    database: str
    """What the index lived in: ``sqlite`` or ``postgresql``."""
    counts: dict[str, int]
    """Rows by table."""
    generations: list[dict[str, Any]]
    """``generation``, ``rows`` and whether it is ``current``, of those whose files are here."""
    weights: dict[str, str]
    """By SHA-256 of a weight file its name in the backup."""
    left_out: list[str]
    """What the index needs or had, and the backup has not; a sentence each."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``bytes`` and ``sha256`` of each file, by its path in the backup."""
    format: int = FORMAT

    @property
    def total_bytes(self) -> int:
        """Of all files that it names."""
        return sum(int(one["bytes"]) for one in self.files.values())

    @classmethod
    def read(cls, folder: Path) -> "Description":
        """What the backup in a folder says of itself.

        Raises:
            InvalidInputError: If there is none (``no-backup``).
            StorageError: If it cannot be read (``backup-corrupt``), or is a later version's
                (``backup-newer``).
        """
        path = folder / DESCRIPTION_FILE
        try:
            content: Any = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidInputError(
                f"{folder} is no backup: it has no {DESCRIPTION_FILE}; name a folder that "
                "parcelle backup wrote to its end.",
                kind="no-backup",
            ) from error
        except OSError as error:
            raise corrupt(path, f"cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            raise corrupt(path, "is no JSON") from error
        try:
            later = int(content["format"]) > FORMAT
            versions = dict(content["versions"])
            if not later:
                found = cls(**content)
                found.check_names()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise corrupt(path, "does not describe a backup") from error
        if later:
            raise newer(folder, versions)
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    def to_json(self) -> bytes:
        """The content of ``backup.json``."""
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()

    def check_names(self) -> None:
        """Refuse names that do not lie in a backup.

        Raises:
            ValueError: If there is one, or something is named that has no file.
        """
        if CATALOG_FILE not in self.files:
            raise ValueError(CATALOG_FILE)
        if not set(self.weights.values()) <= self.files.keys():
            raise ValueError(WEIGHTS)
        folders = {PurePosixPath(name).parts[1] for name in self.files if name.count("/") == 2}
        if folders != {str(int(one["generation"])) for one in self.generations}:
            raise ValueError(GENERATIONS)
        for name in self.files:
            match PurePosixPath(name).parts:
                case ("catalog.db",) | ("weights", _):
                    known = True
                case ("generations", number, _):
                    known = number == str(int(number))
                case _:
                    known = False
            if not known or ".." in PurePosixPath(name).parts:
                raise ValueError(name)


def corrupt(path: Path, what: str) -> StorageError:
    """The error of a backup that is not what was written."""
    return StorageError(
        f"{path}: {what}. The backup cannot be trusted, and nothing was restored; take another.",
        kind="backup-corrupt",
    )


def newer(folder: Path, versions: dict[str, str]) -> StorageError:
    """The error of a backup that this version does not know how to read."""
    return StorageError(
        f"{folder} was written by a newer Parcelle ({versions.get('parcelle', 'unknown')}); update "
        "this installation.",
        kind="backup-newer",
    )
