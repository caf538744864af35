"""Names of collections: those of two installations on one server never meet."""

import re
import secrets
from pathlib import Path

_FILE = "milvus-installation"


def installation(folder: Path) -> str:
    """Eight characters that tell this installation from others, drawn when first asked for.

    They lie where the generations lie, which all machines of an installation share, and are in no
    backup: a copy that is restored elsewhere takes names of its own, and drops nothing of the
    original's.

    Args:
        folder: Where generations lie; the caller is the only writer.
    """
    path = folder / _FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = secrets.token_hex(4)
        aside = path.with_name(f".{_FILE}")
        aside.write_text(drawn + "\n")
        aside.replace(path)
        return drawn


def has_installation(folder: Path) -> bool:
    """Whether anything was ever built."""
    return (folder / _FILE).exists()


def prefix(folder: Path) -> str:
    """How the names of all collections of an installation begin."""
    return f"parcelle_{installation(folder)}_"


def collection_of(folder: Path, generation: int) -> str:
    """The collection of a generation."""
    return f"{prefix(folder)}g{generation}"


def alias_of(folder: Path, space_id: int) -> str:
    """The name that stands for the collection that answers for a space now."""
    return f"{prefix(folder)}s{space_id}"


def generation_in(name: str) -> int | None:
    """The generation that a collection's name tells; None if it is none of a generation."""
    found = re.fullmatch(r"parcelle_[0-9a-f]{8}_g(\d+)", name)
    return None if found is None else int(found[1])
